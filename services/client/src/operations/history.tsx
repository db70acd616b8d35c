import { useInfiniteQuery } from '@tanstack/react-query';
import { letterHistory } from '../api/deadletters.ts';
import { Empty } from '../components/feedback.tsx';
import { Entries, Frame, Listing } from './parts.tsx';

/** Everything that was done about dead letters, and by whom. */
export function HistoryPage() {
  const history = useInfiniteQuery(letterHistory());
  return (
    <Frame title="History" text="Each step of each redrive, each note and each discard: who, when, why and what.">
      <Listing
        query={history}
        loading="Loading the history"
        empty={
          <Empty icon="clock" title="Nothing has been done yet">
            Redrives, notes and discards are recorded here.
          </Empty>
        }
      >
        {(entries) => (
          <div className="panel letter-panel">
            <Entries entries={entries} />
          </div>
        )}
      </Listing>
    </Frame>
  );
}
