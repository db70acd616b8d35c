import { useMutation, useQueryClient } from '@tanstack/react-query';
import { useState } from 'react';
import { Form } from 'react-aria-components';
import { announce } from '../announce.ts';
import { noteGroup, refreshLetters, type LetterGroup } from '../api/deadletters.ts';
import { Modal } from '../components/modal.tsx';
import { LongTextInput } from '../components/text-input.tsx';
import { Refusal } from './parts.tsx';

/** Writes what is known of a cause, for whoever looks next. */
export default function NoteDialog({ group, close }: { group: LetterGroup; close: () => void }) {
  const client = useQueryClient();
  const [text, setText] = useState(group.note?.text ?? '');
  const saving = useMutation({
    mutationFn: () => noteGroup(group.groupId, text.trim()),
    onSuccess: async () => {
      announce(text.trim() === '' ? 'Note removed' : 'Note saved');
      close();
      await refreshLetters(client);
    },
  });
  return (
    <Modal title="What is known of this cause" close={close}>
      <Form
        onSubmit={(event) => {
          event.preventDefault();
          saving.mutate();
        }}
      >
        <LongTextInput label="Note" maxLength={2000} value={text} onChange={setText} autoFocus hint="For whoever looks next. The last note wins; without text there is none." />
        <Refusal error={saving.error} />
        <div className="dialog-foot">
          <button type="button" className="button quiet" onClick={close}>
            Cancel
          </button>
          <button type="submit" className="button" disabled={saving.isPending}>
            Save
          </button>
        </div>
      </Form>
    </Modal>
  );
}
