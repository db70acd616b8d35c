import { useInfiniteQuery } from '@tanstack/react-query';
import { useId, useState, type SubmitEvent } from 'react';
import { Link, useLocation } from 'wouter';
import { letterGroups, type LetterFilter } from '../api/deadletters.ts';
import { Icon } from '../components/icons.tsx';
import { shortId } from '../format.ts';
import { isUuid, lettersHref, parseFilter, states, toLocalTime } from './selection.ts';
import { causeInWords, letterLooks } from './words.ts';

/** The form that narrows the letters. The address keeps what it says. */
export function Filters({ filter }: { filter: LetterFilter }) {
  const [, navigate] = useLocation();
  const [wrongOrder, setWrongOrder] = useState(false);
  const narrow = (event: SubmitEvent<HTMLFormElement>) => {
    event.preventDefault();
    const fields = new FormData(event.currentTarget);
    const orderId = text(fields, 'orderId');
    setWrongOrder(orderId !== '' && !isUuid(orderId));
    if (orderId !== '' && !isUuid(orderId)) return;
    const asked = new URLSearchParams([...fields.keys()].map((name) => [name, text(fields, name)]));
    const { groupId, redriveId } = filter; // have no field, and stay
    navigate(lettersHref({ ...parseFilter(asked), ...(groupId !== undefined && { groupId }), ...(redriveId !== undefined && { redriveId }) }));
  };
  const narrowed = Object.keys(filter).length > 0;
  return (
    <search>
      <form className="panel filters" aria-label="Filter letters" onSubmit={narrow}>
        <QueueField value={filter.queue ?? ''} />
        <label className="field">
          <span>State</span>
          <select name="state" className="input" defaultValue={filter.state ?? ''}>
            <option value="">Any</option>
            {states.map((state) => (
              <option key={state} value={state}>
                {letterLooks[state].name}
              </option>
            ))}
          </select>
        </label>
        <label className="field">
          <span>Text in body, error or message id</span>
          <input name="text" type="search" className="input" maxLength={200} defaultValue={filter.text} />
        </label>
        <OrderField value={filter.orderId ?? ''} wrong={wrongOrder} />
        <label className="field">
          <span>Died since</span>
          <input name="since" type="datetime-local" className="input" defaultValue={toLocalTime(filter.since)} />
        </label>
        <label className="field">
          <span>Died before</span>
          <input name="until" type="datetime-local" className="input" defaultValue={toLocalTime(filter.until)} />
        </label>
        <div className="filters-foot">
          <Only filter={filter} />
          {narrowed && (
            <Link to="/operations/letters" className="button plain compact">
              Clear
            </Link>
          )}
          <button type="submit" className="button quiet compact">
            <Icon name="search" />
            Filter
          </button>
        </div>
      </form>
    </search>
  );
}

function text(fields: FormData, name: string): string {
  const value = fields.get(name);
  return typeof value === 'string' ? value.trim() : '';
}

/** Offers the queues that have causes; one that has none any more stays as it was asked for. */
function QueueField({ value }: { value: string }) {
  const groups = useInfiniteQuery(letterGroups());
  const queues = [...new Set([...(groups.data ?? []).map(({ queue }) => queue), ...(value === '' ? [] : [value])])].sort();
  return (
    <label className="field">
      <span>Queue</span>
      {/* The options come later than the value. */}
      <select key={queues.join(' ')} name="queue" className="input" defaultValue={value}>
        <option value="">Any</option>
        {queues.map((queue) => (
          <option key={queue}>{queue}</option>
        ))}
      </select>
    </label>
  );
}

function OrderField({ value, wrong }: { value: string; wrong: boolean }) {
  const message = useId();
  return (
    <div className="field">
      <label className="field">
        <span>Order</span>
        <input name="orderId" className="input" spellCheck={false} autoComplete="off" placeholder="Its whole id" defaultValue={value} aria-invalid={wrong} aria-describedby={message} />
      </label>
      <p id={message} className="react-aria-FieldError">
        {wrong && 'An order’s id has 36 characters, as 0198e1b2-7c3d-7a10-9f00-3c5f1d2b4a60.'}
      </p>
    </div>
  );
}

/** What narrows the list without a field of its own. */
function Only({ filter: { groupId, redriveId, ...rest } }: { filter: LetterFilter }) {
  const groups = useInfiniteQuery(letterGroups());
  if (groupId === undefined && redriveId === undefined) return null;
  const group = groups.data?.find((other) => other.groupId === groupId);
  return (
    <ul className="only">
      {groupId !== undefined && (
        <li>
          <span>Only: {group ? causeInWords(group) : `cause ${groupId}`}</span>
          <Link to={lettersHref({ ...rest, ...(redriveId !== undefined && { redriveId }) })} className="round-button" aria-label="Of all causes">
            <Icon name="cross" />
          </Link>
        </li>
      )}
      {redriveId !== undefined && (
        <li>
          <span>Only: last sent by redrive {shortId(redriveId)}</span>
          <Link to={lettersHref({ ...rest, ...(groupId !== undefined && { groupId }) })} className="round-button" aria-label="Of all redrives">
            <Icon name="cross" />
          </Link>
        </li>
      )}
    </ul>
  );
}
