import type { ReactNode } from 'react';
import type { Explanation } from '../api/problem.ts';
import { Notice } from './feedback.tsx';
import { Modal } from './modal.tsx';

interface Props {
  title: string;
  confirm: string;
  decline: string;
  busy: boolean;
  problem: Explanation | null;
  onConfirm: () => void;
  close: () => void;
  children: ReactNode;
}

/** Asks before something that cannot be undone. */
export default function ConfirmDialog({ title, confirm, decline, busy, problem, onConfirm, close, children }: Props) {
  return (
    <Modal title={title} close={close}>
      <p className="soft">{children}</p>
      {problem && (
        <div role="alert">
          <Notice kind="bad">
            <strong>{problem.title}.</strong> {problem.text}
          </Notice>
        </div>
      )}
      <div className="dialog-foot">
        <button type="button" className="button quiet" onClick={close}>
          {decline}
        </button>
        <button type="button" className="button danger" disabled={busy} onClick={onConfirm}>
          {confirm}
        </button>
      </div>
    </Modal>
  );
}
