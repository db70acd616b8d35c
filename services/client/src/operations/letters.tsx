import { useInfiniteQuery } from '@tanstack/react-query';
import { useState } from 'react';
import { Link, useSearchParams } from 'wouter';
import { exportLetters, letters, type LetterFilter, type LetterSummary } from '../api/deadletters.ts';
import { Empty } from '../components/feedback.tsx';
import { counted, shortId } from '../format.ts';
import { Act } from './act.tsx';
import { Download } from './download.tsx';
import { Filters } from './filters.tsx';
import { Ago, Frame, LetterBadge, Listing } from './parts.tsx';
import { isOpen, lettersHref, maxSelected, parseFilter, selectionAll, selectionOf } from './selection.ts';
import { causeInWords, reasonInWords } from './words.ts';

/** Dead letters, narrowed as the address says, to look at and to choose from. */
export function LettersPage() {
  const [parameters] = useSearchParams();
  const filter = parseFilter(parameters);
  const { redriveId, ...exported } = filter;
  return (
    <Frame
      title="Letters"
      text="What could not be handled, the latest first."
      tools={redriveId === undefined && <Download label="Export" name="letters.jsonl" read={() => exportLetters(exported)} />}
    >
      <Filters key={lettersHref(filter)} filter={filter} />
      <Found key={`found ${lettersHref(filter)}`} filter={filter} />
    </Frame>
  );
}

function Found({ filter }: { filter: LetterFilter }) {
  const found = useInfiniteQuery(letters(filter));
  const [ticked, setTicked] = useState<ReadonlySet<number>>(new Set());
  const tick = (ids: readonly number[], on: boolean) => {
    const next = new Set(ticked);
    for (const id of ids) {
      if (!on) next.delete(id);
      else if (next.size < maxSelected) next.add(id);
    }
    setTicked(next);
  };
  const open = (found.data ?? []).filter(isOpen);
  // What was handled or discarded meanwhile is no longer selected.
  const chosen = open.filter(({ letterId }) => ticked.has(letterId));
  const all = selectionAll(filter);
  return (
    <>
      {open.length > 0 && (
        <div className="choice" role="group" aria-label="What to do">
          <label className="choice-all">
            <input
              type="checkbox"
              checked={chosen.length === open.length}
              onChange={(event) => {
                tick(open.map(({ letterId }) => letterId), event.target.checked);
              }}
            />
            {chosen.length === 0 ? `Select the ${counted(open.length, 'letter')} shown` : `${counted(chosen.length, 'letter')} selected`}
          </label>
          {chosen.length > 0 ? (
            <Act key="chosen" selection={selectionOf(chosen)} done={() => { setTicked(new Set()); }} />
          ) : typeof all === 'string' ? (
            <p className="soft small">{all}</p>
          ) : (
            <>
              <p className="soft small">Or all that match and wait:</p>
              <Act key="all" selection={all} />
            </>
          )}
        </div>
      )}
      <Listing
        query={found}
        loading="Loading the letters"
        empty={
          <Empty icon="search" title="No letters">
            {Object.keys(filter).length === 0 ? 'Every message was handled.' : 'Nothing matches. Try fewer filters.'}
          </Empty>
        }
      >
        {(list) => (
          <ul className="panel letters" aria-label="Letters">
            {list.map((letter) => (
              <Row key={letter.letterId} letter={letter} ticked={ticked.has(letter.letterId)} tick={tick} />
            ))}
          </ul>
        )}
      </Listing>
    </>
  );
}

interface RowProps {
  letter: LetterSummary;
  ticked: boolean;
  tick: (ids: readonly number[], on: boolean) => void;
}

function Row({ letter, ticked, tick }: RowProps) {
  const { letterId, orderId } = letter;
  return (
    <li className="letter">
      <input
        type="checkbox"
        aria-label={`Select letter ${letterId}`}
        disabled={!isOpen(letter)}
        checked={ticked && isOpen(letter)}
        onChange={(event) => {
          tick([letterId], event.target.checked);
        }}
      />
      <div className="letter-what">
        <h2>
          <Link to={`/operations/letters/${letterId}`}>{causeInWords(letter)}</Link>
        </h2>
        <p className="soft small">
          <span className="number">No. {letterId}</span> · <span className="mono">{letter.queue}</span> · {reasonInWords(letter.reason)}
          {orderId !== null && (
            <>
              {' '}
              · order{' '}
              <Link to={`/order/${orderId}`} className="number">
                {shortId(orderId)}
              </Link>
            </>
          )}
        </p>
      </div>
      <div className="letter-state">
        <LetterBadge state={letter.state} />
        <span className="soft small">
          <Ago at={letter.lastDiedAt} />
          {letter.deaths > 1 && `, ${counted(letter.deaths, 'death')}`}
        </span>
      </div>
    </li>
  );
}
