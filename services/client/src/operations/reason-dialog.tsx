import { useMutation, useQueryClient } from '@tanstack/react-query';
import { useState, type ReactNode } from 'react';
import { Form } from 'react-aria-components';
import { refreshLetters } from '../api/deadletters.ts';
import { Modal } from '../components/modal.tsx';
import { LongTextInput } from '../components/text-input.tsx';
import { Refusal } from './parts.tsx';

interface Props {
  title: string;
  confirm: string;
  /** What is done; its promise rejects when it was not. */
  act: (why: string) => Promise<unknown>;
  close: () => void;
  isRequired?: boolean;
  isDangerous?: boolean;
  hint?: string;
  /** Stands in place of what went wrong, where there is more to say. */
  refused?: (error: Error) => ReactNode;
  children: ReactNode;
}

/** Asks for the reason of a step, which the history keeps. */
export default function ReasonDialog({ title, confirm, act, close, isRequired = false, isDangerous = false, hint, refused, children }: Props) {
  const client = useQueryClient();
  const [why, setWhy] = useState('');
  const acting = useMutation({
    mutationFn: () => act(why.trim()),
    onSuccess: close,
    onSettled: () => refreshLetters(client), // whatever came of it
  });
  return (
    <Modal title={title} close={close}>
      <div className="dialog-text">{children}</div>
      <Form
        onSubmit={(event) => {
          event.preventDefault();
          acting.mutate();
        }}
      >
        <LongTextInput label="Why" isRequired={isRequired} maxLength={500} value={why} onChange={setWhy} autoFocus hint={hint ?? 'For the history.'} />
        {acting.error && (refused?.(acting.error) ?? <Refusal error={acting.error} />)}
        <div className="dialog-foot">
          <button type="button" className="button quiet" onClick={close}>
            Back
          </button>
          <button type="submit" className={isDangerous ? 'button danger' : 'button'} disabled={acting.isPending}>
            {confirm}
          </button>
        </div>
      </Form>
    </Modal>
  );
}
