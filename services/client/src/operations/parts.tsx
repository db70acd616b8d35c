import type { UseInfiniteQueryResult, UseQueryResult } from '@tanstack/react-query';
import type { ReactNode } from 'react';
import { Link, useRoute } from 'wouter';
import type { LetterEntry, LetterState, RedriveState } from '../api/deadletters.ts';
import { explain, Problem } from '../api/problem.ts';
import { Failure, More, Notice, Outdated, PageLoading, Skeleton } from '../components/feedback.tsx';
import { Icon } from '../components/icons.tsx';
import { Title } from '../components/title.tsx';
import { ago, fullTime, shortId } from '../format.ts';
import { canaries, entryInWords, letterLooks, redriveLooks, whoInWords } from './words.ts';

/** What the pages of operations have in common: the way to the others, a heading, and what can be done. */
export function Frame({ title, text, tools, children }: { title: string; text?: ReactNode; tools?: ReactNode; children: ReactNode }) {
  return (
    <>
      <nav aria-label="Operations" className="sections">
        <Section to="/operations" label="Causes" />
        <Section to="/operations/letters" label="Letters" />
        <Section to="/operations/redrives" label="Redrives" />
        <Section to="/operations/history" label="History" />
      </nav>
      <div className="page-head">
        <div>
          <Title title={title}>{title}</Title>
          {text !== undefined && <p>{text}</p>}
        </div>
        {tools !== undefined && <div className="tools">{tools}</div>}
      </div>
      {children}
    </>
  );
}

function Section({ to, label }: { to: string; label: string }) {
  const [exactly] = useRoute(to);
  const [below] = useRoute(`${to}/*`);
  const here = exactly || (to !== '/operations' && below);
  return (
    <Link to={to} className={here ? 'section active' : 'section'} aria-current={here ? 'page' : undefined}>
      {label}
    </Link>
  );
}

interface SingleProps<T> {
  query: UseQueryResult<T>;
  missing: ReactNode;
  children: (found: T) => ReactNode;
}

/** What a page is about, whatever state its reading is in. missing: there is nothing with this id. */
export function Single<T>({ query, missing, children }: SingleProps<T>) {
  const { data, error, isPaused } = query;
  const isMissing = error instanceof Problem && (error.status === 404 || error.status === 400);
  return (
    <>
      <Outdated when={query.isError && data !== undefined} />
      {data !== undefined ? (
        children(data)
      ) : isMissing ? (
        missing
      ) : query.isError || isPaused ? (
        <Failure error={error} retry={() => void query.refetch()} />
      ) : (
        <PageLoading />
      )}
    </>
  );
}

interface ListingProps<T> {
  query: UseInfiniteQueryResult<T[]>;
  loading: string;
  empty: ReactNode;
  children: (found: T[]) => ReactNode;
}

/** A list that comes in pages, whatever state its reading is in. */
export function Listing<T>({ query, loading, empty, children }: ListingProps<T>) {
  const retry = () => void query.refetch();
  return (
    <>
      <Outdated when={query.isError && query.data !== undefined} />
      {query.isPending && (query.isPaused ? <Failure error={null} retry={retry} /> : <RowSkeletons label={loading} />)}
      {query.isError && query.data === undefined && <Failure error={query.error} retry={retry} />}
      {query.data && (query.data.length === 0 ? empty : children(query.data))}
      <More query={query} />
    </>
  );
}

function RowSkeletons({ label }: { label: string }) {
  return (
    <div role="status" className="letter-skeletons">
      <span className="visually-hidden">{label}</span>
      {Array.from({ length: 4 }, (_, i) => (
        <Skeleton key={i} height="6rem" />
      ))}
    </div>
  );
}

export function LetterBadge({ state }: { state: LetterState }) {
  const { name, kind, icon } = letterLooks[state];
  return (
    <span className={`badge ${kind}`}>
      <Icon name={icon} />
      {name}
    </span>
  );
}

export function RedriveBadge({ state }: { state: RedriveState }) {
  const { name, kind, icon } = redriveLooks[state];
  return (
    <span className={`badge ${kind}`}>
      <Icon name={icon} />
      {name}
    </span>
  );
}

/** A time as people say it, and exactly when one asks. */
export function Ago({ at }: { at: string }) {
  return (
    <time dateTime={at} title={fullTime(at)} className="number">
      {ago(at)}
    </time>
  );
}

/** Says in a dialog that it did not work. */
export function Refusal({ error }: { error: Error | null }) {
  if (!error) return null;
  const { title, text } = explain(error);
  return (
    <div role="alert">
      <Notice kind="bad">
        <strong>{title}.</strong> {text}
      </Notice>
    </div>
  );
}

/** Entries of the history, newest first. about: the page they are on says which redrive or letter. */
export function Entries({ entries, about }: { entries: readonly LetterEntry[]; about?: 'redrive' | 'letter' }) {
  const first = canaries(entries);
  return (
    <ol className="entries">
      {entries.map((entry, i) => (
        <li key={`${entry.at} ${entry.action} ${entry.letterId ?? ''}`}>
          <span className={`entry-mark ${marks[entry.action] ?? ''}`} aria-hidden="true" />
          <div>
            <p>
              <strong>{entryInWords(entry, about !== 'letter' && first.has(i))}</strong>{' '}
              {entry.letterId !== null && about !== 'letter' && <Link to={`/operations/letters/${entry.letterId}`}>Letter {entry.letterId}</Link>}{' '}
              {entry.redriveId !== null && about !== 'redrive' && <Link to={`/operations/redrives/${entry.redriveId}`}>Redrive {shortId(entry.redriveId)}</Link>}
            </p>
            {entry.why !== '' && <p className="entry-why">“{entry.why}”</p>}
            {entry.detail !== '' && <p className="soft small">{entry.detail}</p>}
            <p className="soft small">
              <Ago at={entry.at} /> by <Who by={entry.by} />
            </p>
          </div>
        </li>
      ))}
    </ol>
  );
}

const marks: Readonly<Partial<Record<LetterEntry['action'], string>>> = {
  handled: 'good',
  done: 'good',
  died: 'bad',
  stopped: 'bad',
  unknown: 'wait',
  sent: 'wait',
};

export function Who({ by }: { by: string }) {
  const words = whoInWords(by);
  return words === by ? <span className="mono">{by}</span> : <>{words}</>;
}
