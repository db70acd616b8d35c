import { useQuery } from '@tanstack/react-query';
import type { ReactNode } from 'react';
import { Link } from 'wouter';
import { letter, letterBody, type Letter } from '../api/deadletters.ts';
import { CopyButton } from '../components/copy-button.tsx';
import { Empty, Notice } from '../components/feedback.tsx';
import { Icon } from '../components/icons.tsx';
import { traceUrl } from '../config.ts';
import { bytes, count, counted, fullTime, shortId } from '../format.ts';
import { Act } from './act.tsx';
import { Download } from './download.tsx';
import { Entries, Frame, Single } from './parts.tsx';
import { readableBody } from './readable.ts';
import { isOpen, lettersHref, selectionOf } from './selection.ts';
import { letterLooks, reasonInWords } from './words.ts';

/** One dead letter: why it died, what it says, and what was done with it. */
export function LetterPage({ letterId }: { letterId: number }) {
  const query = useQuery(letter(letterId));
  return (
    <Frame title={`Letter ${letterId}`} text={query.data && <span className="mono">{query.data.queue}</span>}>
      <Single query={query} missing={<Missing />}>
        {(found) => <Found letter={found} />}
      </Single>
    </Frame>
  );
}

function Missing() {
  return (
    <Empty
      icon="letters"
      title="There is no such letter"
      action={
        <Link to="/operations/letters" className="button">
          To the letters
        </Link>
      }
    >
      Its retention may be over.
    </Empty>
  );
}

const fates = {
  waiting: 'Nothing was done about it since it died. Repair the cause, then redrive it.',
  redriving: 'It is on its way back to its queue, or in it. What becomes of it is known soon.',
  handled: 'Its consumer has reported that it handled it.',
  unknown: 'It was sent, and nothing was heard of it since. It may still be handled, or die again.',
  discarded: 'It was given up. It stays readable until its retention ends.',
} as const;

function Found({ letter }: { letter: Letter }) {
  return (
    <div className="letter-page">
      <div className="letter-main">
        <Fate letter={letter} />
        <Body letter={letter} />
        <Fields title="Headers" fields={letter.headers} />
        <Fields title="Properties" fields={letter.properties} />
      </div>
      <div className="letter-side">
        <Facts letter={letter} />
        <section className="panel letter-panel" aria-labelledby="history-title">
          <h2 id="history-title">History</h2>
          {letter.history.length === 0 ? <p className="soft">Nothing was done with it.</p> : <Entries entries={letter.history} about="letter" />}
        </section>
      </div>
    </div>
  );
}

function Fate({ letter }: { letter: Letter }) {
  const { name, kind, icon } = letterLooks[letter.state];
  return (
    <section className={`panel fate ${kind}`} aria-label="State of the letter">
      <span className="fate-icon">
        <Icon name={icon} />
      </span>
      <div className="fate-text">
        <h2>{name}</h2>
        <p>{fates[letter.state]}</p>
        <p className="fate-error">
          <strong>{reasonInWords(letter.reason)}</strong>
          {letter.error !== '' && <span className="mono">{letter.error}</span>}
        </p>
      </div>
      {isOpen(letter) && (
        <div className="fate-actions">
          <Act selection={selectionOf([letter])} />
        </div>
      )}
    </section>
  );
}

function Body({ letter }: { letter: Letter }) {
  const { kind, text, cut } = readableBody(letter);
  return (
    <section className="panel letter-panel" aria-labelledby="body-title">
      <div className="panel-head">
        <h2 id="body-title">Body</h2>
        <span className="soft small">
          {kind}, {bytes(letter.bodyBytes)}
        </span>
        {text !== '' && <CopyButton text={text} label="Copy the body" />}
        <Download label="Save" name={`letter-${letter.letterId}`} read={() => letterBody(letter.letterId)} />
      </div>
      {text === '' ? (
        <p className="soft">It has no body.</p>
      ) : (
        // Scrolls, so the keyboard has to get there.
        // eslint-disable-next-line jsx-a11y-x/no-noninteractive-tabindex
        <pre className="body" role="region" aria-label="Body of the letter" tabIndex={0}>
          {text}
        </pre>
      )}
      {cut && <Notice kind="wait">This is its beginning. Save it to see the whole.</Notice>}
    </section>
  );
}

const fewFields = 40;
const shortValue = 300; // characters

function Fields({ title, fields }: { title: string; fields: Letter['headers'] }) {
  const list = (some: Letter['headers']) => (
    <dl className="fields">
      {some.map(({ name, type, value }, i) => (
        <div key={`${i} ${name}`}>
          <dt>
            {name} <span className="soft small">{type}</span>
          </dt>
          <dd className="mono">
            {value.length <= shortValue ? (
              value
            ) : (
              <details>
                <summary>{value.slice(0, shortValue)}…</summary>
                {value}
              </details>
            )}
          </dd>
        </div>
      ))}
    </dl>
  );
  return (
    <section className="panel letter-panel" aria-label={title}>
      <div className="panel-head">
        <h2>{title}</h2>
        <span className="soft small">{fields.length}</span>
      </div>
      {fields.length === 0 && <p className="soft">There are none.</p>}
      {list(fields.slice(0, fewFields))}
      {fields.length > fewFields && (
        <details>
          <summary>{count(fields.length - fewFields)} more</summary>
          {list(fields.slice(fewFields))}
        </details>
      )}
    </section>
  );
}

function Facts({ letter }: { letter: Letter }) {
  const { orderId, traceId } = letter;
  const trace = traceId === null ? undefined : traceUrl(traceId);
  return (
    <section className="panel letter-panel" aria-labelledby="facts-title">
      <h2 id="facts-title">Details</h2>
      <dl className="letter-facts">
        <Fact name="Order">
          {orderId === null ? (
            'names none'
          ) : (
            <>
              <Link to={`/order/${orderId}`} className="mono">
                {orderId}
              </Link>
              <CopyButton text={orderId} label="Copy the order's id" />
            </>
          )}
        </Fact>
        <Fact name="Trace of its first life">
          {traceId === null ? (
            'names none'
          ) : (
            <>
              {trace === undefined ? (
                <span className="mono">{traceId}</span>
              ) : (
                <a href={trace} target="_blank" rel="noreferrer" className="mono">
                  {traceId}
                </a>
              )}
              <CopyButton text={traceId} label="Copy the trace's id" />
            </>
          )}
        </Fact>
        <Fact name="Type">{letter.type === '' ? 'none' : <span className="mono">{letter.type}</span>}</Fact>
        <Fact name="Message">{letter.messageId === '' ? 'no id' : <span className="mono">{letter.messageId}</span>}</Fact>
        <Fact name="Cause">
          <Link to={lettersHref({ groupId: letter.groupId })}>Letters like this</Link>
        </Fact>
        <Fact name="Died">
          {letter.deaths === 1 ? fullTime(letter.lastDiedAt) : `${counted(letter.deaths, 'time')}, first ${fullTime(letter.firstDiedAt)}, last ${fullTime(letter.lastDiedAt)}`}
          {letter.attempts !== null && `, after ${counted(letter.attempts, 'failed attempt')}`}
        </Fact>
        {letter.redriveId !== null && (
          <Fact name="Last sent by">
            <Link to={`/operations/redrives/${letter.redriveId}`}>Redrive {shortId(letter.redriveId)}</Link>
          </Fact>
        )}
      </dl>
    </section>
  );
}

function Fact({ name, children }: { name: string; children: ReactNode }) {
  return (
    <div>
      <dt>{name}</dt>
      <dd>{children}</dd>
    </div>
  );
}
