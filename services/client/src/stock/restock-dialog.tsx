import { useMutation, useQueryClient } from '@tanstack/react-query';
import { useState } from 'react';
import { Form } from 'react-aria-components';
import { announce } from '../announce.ts';
import { explain, Problem } from '../api/problem.ts';
import { readProduct, refreshProducts, restockProduct, type Product } from '../api/products.ts';
import { Notice } from '../components/feedback.tsx';
import { Modal } from '../components/modal.tsx';
import { NumberInput } from '../components/text-input.tsx';
import { count, counted } from '../format.ts';

/**
 * Counts in units that have arrived. Others may do the same, or order, at the
 * same time. Adding names the version that was seen (If-Match), so that units
 * whose answer got lost are not added twice; when there is a newer one, the
 * dialog shows the stock as it is now and lets the person decide.
 */
export default function RestockDialog({ product, close }: { product: Product; close: () => void }) {
  const client = useQueryClient();
  const [base, setBase] = useState(product);
  const [quantity, setQuantity] = useState(Number.NaN);
  const restocking = useMutation({
    mutationFn: async () => {
      try {
        const now = await restockProduct(product.productId, base.version, quantity);
        announce(`${counted(quantity, 'unit')} added. ${count(now.stock)} in stock: ${now.name}`);
        close();
        await refreshProducts(client);
      } catch (error) {
        if (!(error instanceof Problem && error.status === 412)) throw error;
        setBase(await readProduct(product.productId));
      }
    },
  });
  const invalid = restocking.error instanceof Problem ? restocking.error.fields : {};
  return (
    <Modal title={`Restock ${base.name}`} close={close}>
      {base !== product && (
        <div role="alert">
          <Notice kind="wait">
            <strong>Changed in the meantime.</strong> Nothing was added just now. There were {count(product.stock)} in stock when you opened this, and there
            are {count(base.stock)} now: your units may be among them if an earlier try got no answer. Add them only if they are not.
          </Notice>
        </div>
      )}
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
              ? `${count(base.stock)} in stock, ${count(base.reserved)} reserved for orders`
              : `Makes ${count(base.stock + quantity)} in stock, unless someone orders meanwhile`
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
            {base === product ? 'Cancel' : 'Leave it as it is now'}
          </button>
          <button type="submit" className="button" disabled={restocking.isPending}>
            Add to stock
          </button>
        </div>
      </Form>
    </Modal>
  );
}
