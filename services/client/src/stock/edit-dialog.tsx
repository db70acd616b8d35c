import { useMutation, useQueryClient } from '@tanstack/react-query';
import { useState } from 'react';
import { Form } from 'react-aria-components';
import { announce } from '../announce.ts';
import { explain, Problem } from '../api/problem.ts';
import { changeProduct, deleteProduct, readProduct, refreshProducts, type Product } from '../api/products.ts';
import { Notice } from '../components/feedback.tsx';
import { Modal } from '../components/modal.tsx';
import { NumberInput, TextInput } from '../components/text-input.tsx';
import { money } from '../format.ts';
import './edit-dialog.css';
import { draftOf, fields, merge, type Draft, type Field, type Merge } from './merge.ts';

interface Conflict extends Merge {
  before: Draft; // what both began with
  theirs: Draft;
}

/**
 * Changes a product that may be changed elsewhere at the same time. Saving
 * names the version that was seen (If-Match); when there is a newer one, the
 * dialog shows what became of it and lets the person decide.
 */
export default function EditDialog({ product, close }: { product: Product; close: () => void }) {
  const client = useQueryClient();
  const [base, setBase] = useState(product);
  const [draft, setDraft] = useState(() => draftOf(product));
  const [conflict, setConflict] = useState<Conflict>();
  const [removing, setRemoving] = useState(false);
  const { productId } = product;

  /** Learns what the product is now and merges the draft into it. */
  const catchUp = async () => {
    const now = await readProduct(productId);
    const merged = merge(draftOf(base), draftOf(now), draft);
    setConflict({ ...merged, before: draftOf(base), theirs: draftOf(now) });
    setDraft(merged.draft);
    setBase(now);
  };
  const done = async (what: string) => {
    announce(what);
    close();
    await refreshProducts(client);
  };
  const refused = async (error: Error) => {
    if (error instanceof Problem && error.status === 412) await catchUp();
    else throw error;
  };

  const saving = useMutation({
    mutationFn: async () => {
      try {
        const saved = await changeProduct(productId, base.version, draft);
        await done(`Saved ${saved.name}`);
      } catch (error) {
        await refused(error as Error);
      }
    },
  });
  const deleting = useMutation({
    mutationFn: async () => {
      try {
        await deleteProduct(productId, base.version);
        await done(`Removed ${base.name}`);
      } catch (error) {
        setRemoving(false);
        await refused(error as Error);
      }
    },
  });
  const busy = saving.isPending || deleting.isPending;
  const error = saving.error ?? deleting.error;
  const invalid = error instanceof Problem ? error.fields : {};
  return (
    <Modal title={conflict ? 'Changed in the meantime' : 'Edit product'} close={close} wide>
      {conflict && <Explained conflict={conflict} currency={base.currency} />}
      <Form
        validationErrors={{ ...invalid }}
        onSubmit={(event) => {
          event.preventDefault();
          saving.mutate();
        }}
      >
        <TextInput label="Name" name="name" isRequired maxLength={200} value={draft.name} onChange={(name) => { setDraft({ ...draft, name }); }} />
        <NumberInput
          label={`Price in ${base.currency}`}
          name="priceCents"
          isRequired
          minValue={0}
          maxValue={1_000_000}
          formatOptions={{ minimumFractionDigits: 2, maximumFractionDigits: 2 }}
          value={draft.priceCents / 100}
          onChange={(price) => { setDraft({ ...draft, priceCents: Math.round(price * 100) }); }}
          hint="Orders that are confirmed keep the price they were confirmed with."
        />
        {error && Object.keys(invalid).length === 0 && (
          <div role="alert">
            <Notice kind="bad">
              <strong>{explain(error).title}.</strong> {explain(error).text}
            </Notice>
          </div>
        )}
        {removing ? (
          <div className="dialog-foot">
            <p className="aside">Remove it from the catalog for good?</p>
            <button type="button" className="button quiet" onClick={() => { setRemoving(false); }}>
              Keep it
            </button>
            <button type="button" className="button danger" disabled={busy} onClick={() => { deleting.mutate(); }}>
              Remove
            </button>
          </div>
        ) : (
          <div className="dialog-foot">
            <button type="button" className="button plain aside remove" disabled={busy} onClick={() => { setRemoving(true); }}>
              Remove…
            </button>
            <button type="button" className="button quiet" onClick={close}>
              {conflict ? 'Leave it as it is now' : 'Cancel'}
            </button>
            <button type="submit" className="button" disabled={busy}>
              {conflict && conflict.disputed.length > 0 ? 'Save mine instead' : 'Save'}
            </button>
          </div>
        )}
      </Form>
    </Modal>
  );
}

const labels: Readonly<Record<Field, string>> = { name: 'Name', priceCents: 'Price' };

function Explained({ conflict, currency }: { conflict: Conflict; currency: string }) {
  const { before, theirs, taken, disputed } = conflict;
  const show = (draft: Draft, field: Field) => (field === 'name' ? draft.name : money(draft.priceCents, currency));
  const changed = fields.filter((field) => before[field] !== theirs[field]);
  return (
    <div role="alert" className="conflict">
      <p>
        Someone saved this product after you opened it, so nothing of yours was saved.
        {disputed.length > 0 && ' Where both of you made a change, yours is still in the form: save it instead, or leave theirs.'}
        {disputed.length === 0 && taken.length > 0 && ' Their change is in the form now; yours does not touch it.'}
        {changed.length === 0 && ' Only its stock has changed: save again.'}
      </p>
      {changed.length > 0 && (
        <table>
          <thead>
            <tr>
              <td />
              <th scope="col">When you opened it</th>
              <th scope="col">Now</th>
              <th scope="col">In the form</th>
            </tr>
          </thead>
          <tbody>
            {changed.map((field) => (
              <tr key={field} className={disputed.includes(field) ? 'disputed' : undefined}>
                <th scope="row">{labels[field]}</th>
                <td>{show(before, field)}</td>
                <td>{show(theirs, field)}</td>
                <td>{show(conflict.draft, field)}</td>
              </tr>
            ))}
          </tbody>
        </table>
      )}
    </div>
  );
}
