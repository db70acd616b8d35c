import type { Redrive } from '../api/deadletters.ts';
import { count } from '../format.ts';
import { outcomeNames, outcomes } from './words.ts';

/** How far a redrive is, as a bar. What it shows is said in words beside it. */
export function Progress({ redrive }: { redrive: Redrive }) {
  return (
    <div className="progress" aria-hidden="true">
      {outcomes
        .filter((outcome) => redrive[outcome] > 0)
        .map((outcome) => (
          <span key={outcome} className={outcome} style={{ flexGrow: redrive[outcome] }} />
        ))}
    </div>
  );
}

/** The same in numbers. */
export function Outcomes({ redrive }: { redrive: Redrive }) {
  return (
    <dl className="outcomes">
      {outcomes.map((outcome) => (
        <div key={outcome} className={outcome}>
          <dt>{outcomeNames[outcome]}</dt>
          <dd className="number">{count(redrive[outcome])}</dd>
        </div>
      ))}
    </dl>
  );
}
