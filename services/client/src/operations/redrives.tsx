import { useInfiniteQuery } from '@tanstack/react-query';
import { Link } from 'wouter';
import { redrives, type Redrive } from '../api/deadletters.ts';
import { Empty } from '../components/feedback.tsx';
import { counted, shortId } from '../format.ts';
import { Ago, Frame, Listing, RedriveBadge, Who } from './parts.tsx';
import { Progress } from './progress.tsx';
import { resultInWords } from './words.ts';

/** Plans and redrives, those that run among them. */
export function RedrivesPage() {
  const found = useInfiniteQuery(redrives());
  return (
    <Frame title="Redrives" text="Letters on their way back to the queues they died in, and plans for that.">
      <Listing
        query={found}
        loading="Loading the redrives"
        empty={
          <Empty
            icon="again"
            title="Nothing was redriven yet"
            action={
              <Link to="/operations/letters" className="button">
                To the letters
              </Link>
            }
          >
            Select letters, plan their redrive, and start it from its plan.
          </Empty>
        }
      >
        {(list) => (
          <ul className="panel letters" aria-label="Redrives">
            {list.map((redrive) => (
              <Row key={redrive.redriveId} redrive={redrive} />
            ))}
          </ul>
        )}
      </Listing>
    </Frame>
  );
}

function Row({ redrive }: { redrive: Redrive }) {
  const { redriveId, total, why } = redrive;
  const result = resultInWords(redrive);
  return (
    <li className="letter redrive-row">
      <div className="letter-what">
        <h2>
          <Link to={`/operations/redrives/${redriveId}`}>{why}</Link>
        </h2>
        <p className="soft small">
          <span className="number">{shortId(redriveId)}</span> · {counted(total, 'letter')}
          {result !== '' && `: ${result}`} · <Ago at={redrive.createdAt} /> by <Who by={redrive.by} />
        </p>
        {redrive.startedAt !== null && <Progress redrive={redrive} />}
      </div>
      <div className="letter-state">
        <RedriveBadge state={redrive.state} />
      </div>
    </li>
  );
}
