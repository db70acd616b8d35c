import { useState } from 'react';
import { Link } from 'wouter';
import { takenLetters } from '../api/deadletters.ts';
import { Notice } from '../components/feedback.tsx';
import { counted, shortId } from '../format.ts';
import { Refusal } from './parts.tsx';
import ReasonDialog from './reason-dialog.tsx';

interface Props {
  letters: number;
  start: (why: string, skipTaken: boolean) => Promise<unknown>;
  close: () => void;
}

/** Starts a plan, and says which of its letters others have. */
export default function StartDialog({ letters, start, close }: Props) {
  const [skipTaken, setSkipTaken] = useState(false);
  return (
    <ReasonDialog
      title={`Redrive ${counted(letters, 'letter')}?`}
      confirm="Start"
      hint="For the history. The plan has its reason already."
      act={(why) => start(why, skipTaken)}
      close={close}
      refused={(error) => <Refused error={error} skipTaken={skipTaken} setSkipTaken={setSkipTaken} />}
    >
      <p>One letter of each cause goes first, then 2, 5, 20 and more at a time. It stops by itself when one dies again.</p>
    </ReasonDialog>
  );
}

function Refused({ error, skipTaken, setSkipTaken }: { error: Error; skipTaken: boolean; setSkipTaken: (skip: boolean) => void }) {
  const taken = takenLetters(error);
  if (taken.length === 0) return <Refusal error={error} />;
  return (
    <div role="alert" className="taken">
      <Notice kind="wait">
        <p>Not started: a letter belongs to one running redrive at most, and others have these.</p>
        <ul>
          {taken.map(({ letterId, redriveId }) => (
            <li key={letterId}>
              <Link to={`/operations/letters/${letterId}`}>Letter {letterId}</Link> by{' '}
              <Link to={`/operations/redrives/${redriveId}`}>redrive {shortId(redriveId)}</Link>
            </li>
          ))}
        </ul>
      </Notice>
      <label className="check">
        <input
          type="checkbox"
          checked={skipTaken}
          onChange={(event) => {
            setSkipTaken(event.target.checked);
          }}
        />
        <span>Start without them</span>
      </label>
    </div>
  );
}
