import { useMutation, useQueryClient } from '@tanstack/react-query';
import { useState } from 'react';
import { Form } from 'react-aria-components';
import { announce } from '../announce.ts';
import { explain, Problem } from '../api/problem.ts';
import { addProduct, refreshProducts } from '../api/products.ts';
import { Notice } from '../components/feedback.tsx';
import { Modal } from '../components/modal.tsx';
import { ProductArt } from '../components/product-art.tsx';
import { NumberInput, TextInput } from '../components/text-input.tsx';
import { randomUUID } from '../random.ts';
import './add-dialog.css';

/** Adds a product to the catalog. */
export default function AddDialog({ close }: { close: () => void }) {
  const client = useQueryClient();
  // Chosen here, so that adding again after a lost answer is refused instead of done twice.
  const [productId] = useState(randomUUID);
  const [name, setName] = useState('');
  const [price, setPrice] = useState(Number.NaN);
  const [currency, setCurrency] = useState('EUR');
  const [stock, setStock] = useState(Number.NaN);
  const adding = useMutation({
    mutationFn: () => addProduct({ productId, name: name.trim(), priceCents: Math.round(price * 100), currency, stock }),
    onSuccess: async (added) => {
      announce(`Added ${added.name}`);
      close();
      await refreshProducts(client);
    },
  });
  const invalid = adding.error instanceof Problem ? adding.error.fields : {};
  return (
    <Modal title="Add a product" close={close} wide>
      <div className="preview">
        <ProductArt id={productId} name={name} />
      </div>
      <Form
        validationErrors={{ ...invalid }}
        onSubmit={(event) => {
          event.preventDefault();
          adding.mutate();
        }}
      >
        <TextInput label="Name" name="name" isRequired maxLength={200} value={name} onChange={setName} autoFocus />
        <div className="field-row three">
          <NumberInput
            label="Price"
            name="priceCents"
            isRequired
            minValue={0}
            maxValue={1_000_000}
            formatOptions={{ minimumFractionDigits: 2, maximumFractionDigits: 2 }}
            value={price}
            onChange={setPrice}
          />
          <TextInput
            label="Currency"
            name="currency"
            isRequired
            pattern="[A-Z]{3}"
            maxLength={3}
            value={currency}
            onChange={(code) => { setCurrency(code.toUpperCase()); }}
          />
          <NumberInput label="Units in stock" name="stock" isRequired minValue={0} maxValue={1_000_000_000} value={stock} onChange={setStock} />
        </div>
        {adding.error && Object.keys(invalid).length === 0 && (
          <div role="alert">
            <Notice kind="bad">
              <strong>{explain(adding.error).title}.</strong> {explain(adding.error).text}
            </Notice>
          </div>
        )}
        <div className="dialog-foot">
          <button type="button" className="button quiet" onClick={close}>
            Cancel
          </button>
          <button type="submit" className="button" disabled={adding.isPending}>
            Add product
          </button>
        </div>
      </Form>
    </Modal>
  );
}
