import { useInfiniteQuery } from '@tanstack/react-query';
import { lazy, Suspense, useState } from 'react';
import { Link } from 'wouter';
import { letterGroups, type LetterGroup } from '../api/deadletters.ts';
import { Empty, Notice } from '../components/feedback.tsx';
import { Icon } from '../components/icons.tsx';
import { count, counted } from '../format.ts';
import { Ago, Frame, Listing, Who } from './parts.tsx';
import { lettersHref } from './selection.ts';
import { causeInWords, letterLooks, reasonInWords } from './words.ts';

const NoteDialog = lazy(() => import('./note-dialog.tsx'));

/** The causes that letters died of. */
export function GroupsPage() {
  const groups = useInfiniteQuery(letterGroups());
  const [noting, setNoting] = useState<LetterGroup>();
  return (
    <Frame title="Dead letters" text="Messages that no consumer could handle, by their cause. Repair the cause, then send them back.">
      <Listing
        query={groups}
        loading="Loading the causes"
        empty={
          <Empty icon="check" title="No dead letters">
            Every message was handled. What cannot be handled appears here within a moment.
          </Empty>
        }
      >
        {(found) => <Causes groups={found} note={setNoting} />}
      </Listing>
      <Suspense>{noting && <NoteDialog group={noting} close={() => { setNoting(undefined); }} />}</Suspense>
    </Frame>
  );
}

type Note = (group: LetterGroup) => void;

function Causes({ groups, note }: { groups: readonly LetterGroup[]; note: Note }) {
  const settled = groups.filter(isSettled);
  const open = groups.filter((group) => !isSettled(group));
  return (
    <>
      {open.length === 0 && (
        <Notice kind="good" icon="check">
          No letter waits. What there was is settled.
        </Notice>
      )}
      {open.length > 0 && (
        <section aria-labelledby="open-title">
          <h2 id="open-title" className="visually-hidden">
            Open
          </h2>
          <CauseList label="Open causes" groups={open} note={note} />
        </section>
      )}
      {settled.length > 0 && (
        <section className="settled" aria-labelledby="settled-title">
          <h2 id="settled-title">Settled</h2>
          <CauseList label="Settled causes" groups={settled} note={note} />
        </section>
      )}
    </>
  );
}

/** Nothing is left to do about its letters. */
export function isSettled({ waiting, redriving, unknown }: LetterGroup): boolean {
  return waiting + redriving + unknown === 0;
}

function CauseList({ label, groups, note }: { label: string; groups: readonly LetterGroup[]; note: Note }) {
  return (
    <ul className="causes" aria-label={label}>
      {groups.map((group) => (
        <Cause key={group.groupId} group={group} note={note} />
      ))}
    </ul>
  );
}

function Cause({ group, note }: { group: LetterGroup; note: Note }) {
  const settled = isSettled(group);
  const { groupId, queue } = group;
  return (
    <li className="panel cause">
      <div className="cause-what">
        <p className="cause-where">
          <span className={settled ? 'badge neutral' : 'badge bad'}>{reasonInWords(group.reason)}</span>
          <span className="mono">{queue}</span>
        </p>
        <h3>
          <Link to={lettersHref({ groupId, ...(group.waiting > 0 && { state: 'waiting' }) })}>{causeInWords(group)}</Link>
        </h3>
        <p className="soft small">
          First <Ago at={group.firstDiedAt} />, last <Ago at={group.lastDiedAt} /> · {group.lastHour === 0 ? 'none' : count(group.lastHour)} in the last hour
          {' · '}
          <Link to={`/operations/letters/${group.exampleLetterId}`}>latest letter</Link>
        </p>
      </div>
      <dl className="cause-counts">
        {(['waiting', 'redriving', 'unknown', 'handled', 'discarded'] as const)
          .filter((state) => group[state] > 0 || state === 'waiting')
          .map((state) => (
            <div key={state} className={group[state] > 0 ? letterLooks[state].kind : undefined}>
              <dt>{letterLooks[state].name}</dt>
              <dd className="number">{count(group[state])}</dd>
            </div>
          ))}
      </dl>
      <div className="cause-note">
        {group.note && (
          <p>
            {group.note.text}{' '}
            <span className="soft small">
              <Ago at={group.note.at} /> by <Who by={group.note.by} />
            </span>
          </p>
        )}
        <button
          type="button"
          className="button quiet compact"
          aria-label={`${group.note ? 'Change the note' : 'Write a note'} on ${causeInWords(group)}`}
          onClick={() => {
            note(group);
          }}
        >
          <Icon name="pencil" />
          {group.note ? 'Change' : 'Write a note'}
        </button>
        {group.waiting > 0 && (
          <Link to={lettersHref({ groupId, state: 'waiting' })} className="button compact">
            See {counted(group.waiting, 'letter')}
          </Link>
        )}
      </div>
    </li>
  );
}
