import { useMutation, useQueryClient } from '@tanstack/react-query';
import { useState } from 'react';
import { Form } from 'react-aria-components';
import { useLocation } from 'wouter';
import { planRedrive, refreshLetters, type LetterSelection } from '../api/deadletters.ts';
import { Problem } from '../api/problem.ts';
import { Modal } from '../components/modal.tsx';
import { LongTextInput, NumberInput } from '../components/text-input.tsx';
import { Refusal } from './parts.tsx';
import { selectionInWords } from './selection.ts';

const usualRate = 100;

/** Plans a redrive and leads to the plan, from where it is started. */
export default function PlanDialog({ selection, close }: { selection: LetterSelection; close: () => void }) {
  const client = useQueryClient();
  const [, navigate] = useLocation();
  const [why, setWhy] = useState('');
  const [rate, setRate] = useState(usualRate);
  const [unknown, setUnknown] = useState(false);
  const planning = useMutation({
    mutationFn: () => planRedrive({ ...selection, ...(unknown && { unknown }) }, why.trim(), rate),
    onSuccess: async ({ redriveId }) => {
      close();
      navigate(`/operations/redrives/${redriveId}`);
      await refreshLetters(client);
    },
  });
  const { why: wrongWhy, rate: wrongRate, ...other } = planning.error instanceof Problem ? planning.error.fields : {};
  const atFields = { ...(wrongWhy !== undefined && { why: wrongWhy }), ...(wrongRate !== undefined && { rate: wrongRate }) };
  const elsewhere = planning.error && (Object.keys(atFields).length === 0 || Object.keys(other).length > 0) ? planning.error : null;
  return (
    <Modal title="Plan a redrive" close={close}>
      <div className="dialog-text">
        <p>The plan freezes which letters it is about: {selectionInWords(selection)}. Nothing is sent before you start it.</p>
      </div>
      <Form
        validationErrors={atFields}
        onSubmit={(event) => {
          event.preventDefault();
          planning.mutate();
        }}
      >
        <LongTextInput label="Why" name="why" isRequired maxLength={500} value={why} onChange={setWhy} autoFocus hint="What has changed, so that they can be handled now." />
        <NumberInput label="Most letters in a second" name="rate" isRequired minValue={1} maxValue={1000} value={rate} onChange={setRate} />
        {!selection.letterIds && (
          <label className="check">
            <input
              type="checkbox"
              checked={unknown}
              onChange={(event) => {
                setUnknown(event.target.checked);
              }}
            />
            <span>Also letters that were sent and of which nothing was heard</span>
          </label>
        )}
        <Refusal error={elsewhere} />
        <div className="dialog-foot">
          <button type="button" className="button quiet" onClick={close}>
            Back
          </button>
          <button type="submit" className="button" disabled={planning.isPending}>
            Make the plan
          </button>
        </div>
      </Form>
    </Modal>
  );
}
