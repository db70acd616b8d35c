import { useMutation, useQueryClient } from '@tanstack/react-query';
import { useState } from 'react';
import { Form } from 'react-aria-components';
import { announce } from '../announce.ts';
import { explain, Problem } from '../api/problem.ts';
import { refreshProducts, restockProduct, type Product } from '../api/products.ts';
import { Notice } from '../components/feedback.tsx';
import { Modal } from '../components/modal.tsx';
import { NumberInput } from '../components/text-input.tsx';
import { count, counted } from '../format.ts';

/** Counts in units that have arrived. Others may do the same, or order, at the same time. */
export default function RestockDialog({ product, close }: { product: Product; close: () => void }) {
  const client = useQueryClient();
  const [quantity, setQuantity] = useState(Number.NaN);
  const restocking = useMutation({
    mutationFn: () => restockProduct(product.productId, quantity),
    onSuccess: async (now) => {
      announce(`${counted(quantity, 'unit')} added. ${count(now.stock)} in stock: ${now.name}`);
      close();
      await refreshProducts(client);
    },
  });
  const invalid = restocking.error instanceof Problem ? restocking.error.fields : {};
  return (
    <Modal title={`Restock ${product.name}`} close={close}>
      <Form
        validationErrors={{ ...invalid }}
        onSubmit={(event) => {
          event.preventDefault();
          restocking.mutate();
        }}
      >
        <NumberInput
          label="Units received"
          name="quantity"
          isRequired
          minValue={1}
          maxValue={1_000_000_000}
          value={quantity}
          onChange={setQuantity}
          autoFocus
          hint={
            Number.isNaN(quantity)
              ? `${count(product.stock)} in stock, ${count(product.reserved)} reserved for orders`
              : `Makes ${count(product.stock + quantity)} in stock, unless someone orders meanwhile`
          }
        />
        {restocking.error && Object.keys(invalid).length === 0 && (
          <div role="alert">
            <Notice kind="bad">
              <strong>{explain(restocking.error).title}.</strong> {explain(restocking.error).text}
            </Notice>
          </div>
        )}
        <div className="dialog-foot">
          <button type="button" className="button quiet" onClick={close}>
            Cancel
          </button>
          <button type="submit" className="button" disabled={restocking.isPending}>
            Add to stock
          </button>
        </div>
      </Form>
    </Modal>
  );
}
