import { lazy, Suspense, useState } from 'react';
import { announce } from '../announce.ts';
import { discardLetters, type LetterSelection } from '../api/deadletters.ts';
import { Icon } from '../components/icons.tsx';
import { counted } from '../format.ts';
import { selectionInWords } from './selection.ts';

const PlanDialog = lazy(() => import('./plan-dialog.tsx'));
const ReasonDialog = lazy(() => import('./reason-dialog.tsx'));

/** What can be done with some letters. done: something was, and they are others now. */
export function Act({ selection, done }: { selection: LetterSelection; done?: () => void }) {
  const [planning, setPlanning] = useState(false);
  const [discarding, setDiscarding] = useState(false);
  return (
    <>
      <button
        type="button"
        className="button compact"
        onClick={() => {
          setPlanning(true);
        }}
      >
        <Icon name="again" />
        Redrive…
      </button>
      <button
        type="button"
        className="button danger compact"
        onClick={() => {
          setDiscarding(true);
        }}
      >
        <Icon name="trash" />
        Discard…
      </button>
      <Suspense>
        {planning && (
          <PlanDialog
            selection={selection}
            close={() => {
              setPlanning(false);
            }}
          />
        )}
        {discarding && (
          <ReasonDialog
            title={`Discard ${selectionInWords(selection)}?`}
            confirm="Discard"
            isRequired
            isDangerous
            act={async (why) => {
              announce(`${counted(await discardLetters(selection, why), 'letter')} discarded`);
              done?.();
            }}
            close={() => {
              setDiscarding(false);
            }}
          >
            What they say will not happen, and they cannot be redriven any more. They stay readable until their retention ends. Letters of a running redrive
            are left out.
          </ReasonDialog>
        )}
      </Suspense>
    </>
  );
}
