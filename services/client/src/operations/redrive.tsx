import { useInfiniteQuery, useQuery, useQueryClient } from '@tanstack/react-query';
import { lazy, Suspense, useEffect, useState, type ReactNode } from 'react';
import { Link } from 'wouter';
import { announce } from '../announce.ts';
import {
  letter,
  letterHistory,
  redrive as redriveQuery,
  redriveLetters,
  refreshRedrive,
  startRedrive,
  stepRedrive,
  type Redrive,
  type RedriveOutcome,
} from '../api/deadletters.ts';
import { Empty } from '../components/feedback.tsx';
import { Icon } from '../components/icons.tsx';
import { counted, fullTime, shortId } from '../format.ts';
import { Ago, Entries, Frame, Listing, Single, Who } from './parts.tsx';
import { Outcomes, Progress } from './progress.tsx';
import { lettersHref } from './selection.ts';
import { ordersInWords, outcomeNames, outcomes, redriveLooks, resultInWords } from './words.ts';

const ReasonDialog = lazy(() => import('./reason-dialog.tsx'));
const StartDialog = lazy(() => import('./start-dialog.tsx'));

/** One redrive: its plan, and how far it is, as it changes. */
export function RedrivePage({ redriveId }: { redriveId: string }) {
  const query = useQuery(redriveQuery(redriveId));
  return (
    <Frame title={`Redrive ${shortId(redriveId)}`} text={query.data && `“${query.data.why}”`}>
      <Single query={query} missing={<Missing />}>
        {(found) => <Found redrive={found} />}
      </Single>
    </Frame>
  );
}

function Missing() {
  return (
    <Empty
      icon="again"
      title="There is no such redrive"
      action={
        <Link to="/operations/redrives" className="button">
          To the redrives
        </Link>
      }
    >
      The address may be incomplete.
    </Empty>
  );
}

function Found({ redrive }: { redrive: Redrive }) {
  const client = useQueryClient();
  const history = useInfiniteQuery(letterHistory(redrive.redriveId));
  // Also the last change, after which nothing is read again by itself.
  const progress = [redrive.state, ...outcomes.map((outcome) => redrive[outcome])].join(' ');
  useEffect(() => {
    void refreshRedrive(client, redrive.redriveId);
  }, [client, redrive.redriveId, progress]);
  return (
    <div className="letter-page">
      <div className="letter-main">
        <State redrive={redrive} />
        <LettersOf redrive={redrive} />
      </div>
      <div className="letter-side">
        <PlanFacts redrive={redrive} />
        <section className="panel letter-panel" aria-labelledby="steps-title">
          <h2 id="steps-title">Step by step</h2>
          <Listing query={history} loading="Loading the steps" empty={<p className="soft">Nothing was done yet.</p>}>
            {(entries) => <Entries entries={entries} about="redrive" />}
          </Listing>
        </section>
      </div>
    </div>
  );
}

/** What a redrive's state means, and what to do. */
export function describe(redrive: Redrive): { title: string; text: string } {
  const { state, total, sent, planned, handled, died, unknown } = redrive;
  switch (state) {
    case 'draft':
      return total === 0
        ? { title: 'There is nothing to redrive', text: 'No letter waited when the plan was made.' }
        : { title: `Plan for ${counted(total, 'letter')}`, text: 'Nothing is sent before it is started. What died since is not part of it.' };
    case 'running':
      return handled === 0 && died === 0
        ? { title: 'Trying one', text: 'A canary of each cause goes first. When it is handled, 2, 5, 20 and more follow, up to the rate.' }
        : { title: 'Running', text: `${counted(planned, 'letter')} still to send. It stops by itself when one dies again.` };
    case 'paused':
      return { title: 'Paused', text: 'Nothing more is sent. What is under way still gets its outcome.' };
    case 'stopped':
      return { title: 'Stopped by itself', text: 'The letters are still there. Repair the cause, then resume: it continues with a canary.' };
    case 'done':
      return died + unknown === 0
        ? { title: 'Done', text: 'Every letter that was sent has been handled.' }
        : { title: 'Done', text: 'What died again waits as before, and takes a new plan.' };
    case 'cancelled':
      return { title: 'Cancelled', text: sent > 0 ? 'What is under way still gets its outcome.' : 'What was not sent waits as before.' };
  }
}

function State({ redrive }: { redrive: Redrive }) {
  const { state, redriveId, died } = redrive;
  const { kind, icon } = redriveLooks[state];
  const { title, text } = describe(redrive);
  const [first] = useState(state);
  useEffect(() => {
    if (state !== first) announce(`${title}. ${text}`);
  }, [state, first, title, text]);
  return (
    <section className={`panel fate ${kind}`} aria-label="State of the redrive">
      <span className="fate-icon">
        <Icon name={icon} />
      </span>
      <div className="fate-text">
        <h2>{title}</h2>
        <p>{text}</p>
        {state === 'stopped' && <Stopped redrive={redrive} />}
      </div>
      {redrive.startedAt !== null && (
        <div className="fate-progress">
          <p className="visually-hidden">{resultInWords(redrive)}</p>
          <Progress redrive={redrive} />
          <Outcomes redrive={redrive} />
        </div>
      )}
      <Steps redrive={redrive} />
      {died > 0 && (state === 'done' || state === 'cancelled') && (
        <p className="fate-actions">
          <Link to={lettersHref({ redriveId, state: 'waiting' })} className="button quiet compact">
            See what died again
          </Link>
        </p>
      )}
    </section>
  );
}

/** Why it stopped, and which letter made it. */
function Stopped({ redrive: { stoppedBecause, stoppedLetterId } }: { redrive: Redrive }) {
  const culprit = useQuery({ ...letter(stoppedLetterId ?? 0), enabled: stoppedLetterId !== null });
  return (
    <div className="fate-error">
      <p>
        <strong>{stoppedBecause}</strong>
        {stoppedLetterId !== null && (
          <>
            {' – '}
            <Link to={`/operations/letters/${stoppedLetterId}`}>letter {stoppedLetterId}</Link>
          </>
        )}
      </p>
      {culprit.data && culprit.data.error !== '' && <p className="mono">{culprit.data.error}</p>}
    </div>
  );
}

type Task = 'start' | 'pause' | 'resume' | 'cancel';

const tasks: Readonly<Record<Redrive['state'], readonly Task[]>> = {
  draft: ['start', 'cancel'],
  running: ['pause', 'cancel'],
  paused: ['resume', 'cancel'],
  stopped: ['resume', 'cancel'],
  done: [],
  cancelled: [],
};

const taskNames = { start: 'Start…', pause: 'Pause…', resume: 'Resume…', cancel: 'Cancel…' } as const;

const questions: Readonly<Record<Exclude<Task, 'start'>, { title: string; confirm: string; text: ReactNode }>> = {
  pause: { title: 'Pause the redrive?', confirm: 'Pause', text: 'Nothing more is sent. What is under way still gets its outcome.' },
  resume: { title: 'Resume the redrive?', confirm: 'Resume', text: 'It continues with a canary. A letter that died again is not sent again: it takes a new plan.' },
  cancel: { title: 'Cancel the redrive?', confirm: 'Cancel the redrive', text: 'It ends for good. Letters that were not sent are free for other plans.' },
};

function Steps({ redrive }: { redrive: Redrive }) {
  const [task, setTask] = useState<Task>();
  const close = () => {
    setTask(undefined);
  };
  const possible = tasks[redrive.state].filter((other) => other !== 'start' || redrive.total > 0);
  if (possible.length === 0) return null;
  return (
    <div className="fate-actions">
      {possible.map((other) => (
        <button
          key={other}
          type="button"
          className={other === 'cancel' ? 'button danger compact' : 'button compact'}
          onClick={() => {
            setTask(other);
          }}
        >
          {taskNames[other]}
        </button>
      ))}
      <Suspense>
        {task === 'start' && <StartDialog start={(why, skipTaken) => startRedrive(redrive.redriveId, why, skipTaken)} letters={redrive.total} close={close} />}
        {task !== undefined && task !== 'start' && (
          <ReasonDialog
            title={questions[task].title}
            confirm={questions[task].confirm}
            isDangerous={task === 'cancel'}
            act={(why) => stepRedrive(redrive.redriveId, task, why)}
            close={close}
          >
            <p>{questions[task].text}</p>
          </ReasonDialog>
        )}
      </Suspense>
    </div>
  );
}

function PlanFacts({ redrive }: { redrive: Redrive }) {
  const { oldestDiedAt, newestDiedAt, startedAt, endedAt } = redrive;
  return (
    <section className="panel letter-panel" aria-labelledby="plan-title">
      <h2 id="plan-title">The plan</h2>
      <dl className="letter-facts">
        <div>
          <dt>Letters, frozen {fullTime(redrive.createdAt)}</dt>
          <dd>{counted(redrive.total, 'letter')}</dd>
        </div>
        {redrive.queues.map(({ queue, letters }) => (
          <div key={queue}>
            <dt className="mono">{queue}</dt>
            <dd>{counted(letters, 'letter')}</dd>
          </div>
        ))}
        {oldestDiedAt !== null && newestDiedAt !== null && (
          <div>
            <dt>Age</dt>
            <dd>
              died <Ago at={oldestDiedAt} />
              {newestDiedAt !== oldestDiedAt && (
                <>
                  {' to '}
                  <Ago at={newestDiedAt} />
                </>
              )}
            </dd>
          </div>
        )}
        <div>
          <dt>Orders</dt>
          <dd>{ordersInWords(redrive.orders)}</dd>
        </div>
        <div>
          <dt>Rate</dt>
          <dd>at most {counted(redrive.rate, 'letter')} in a second</dd>
        </div>
        <div>
          <dt>Planned by</dt>
          <dd>
            <Who by={redrive.by} />
          </dd>
        </div>
        {startedAt !== null && (
          <div>
            <dt>Started</dt>
            <dd>{fullTime(startedAt)}</dd>
          </div>
        )}
        {endedAt !== null && (
          <div>
            <dt>Ended</dt>
            <dd>{fullTime(endedAt)}</dd>
          </div>
        )}
      </dl>
    </section>
  );
}

const kinds: Readonly<Record<RedriveOutcome, string>> = {
  handled: 'good',
  sent: 'wait',
  died: 'bad',
  unknown: 'wait',
  skipped: 'neutral',
  planned: 'neutral',
};

function LettersOf({ redrive }: { redrive: Redrive }) {
  const [outcome, setOutcome] = useState<RedriveOutcome>();
  const found = useInfiniteQuery(redriveLetters(redrive.redriveId, outcome));
  return (
    <section className="panel letter-panel" aria-labelledby="letters-title">
      <div className="panel-head">
        <h2 id="letters-title">Letters</h2>
        <label className="inline-field">
          <span className="visually-hidden">Outcome</span>
          <select
            className="input"
            value={outcome ?? ''}
            onChange={(event) => {
              setOutcome(outcomes.find((other) => other === event.target.value));
            }}
          >
            <option value="">All outcomes</option>
            {outcomes.map((other) => (
              <option key={other} value={other}>
                {outcomeNames[other]}
              </option>
            ))}
          </select>
        </label>
      </div>
      <Listing query={found} loading="Loading the letters" empty={<p className="soft">None.</p>}>
        {(list) => (
          <ul className="redrive-letters" aria-label="Letters of the redrive">
            {list.map((one) => (
              <li key={one.letterId}>
                <Link to={`/operations/letters/${one.letterId}`}>Letter {one.letterId}</Link>
                <span className="mono soft">{one.queue}</span>
                {one.orderId !== null && (
                  <Link to={`/order/${one.orderId}`} className="number small">
                    order {shortId(one.orderId)}
                  </Link>
                )}
                <span className={`badge ${kinds[one.outcome]}`}>{outcomeNames[one.outcome]}</span>
              </li>
            ))}
          </ul>
        )}
      </Listing>
    </section>
  );
}
