import type { Journey, JourneyStep, Order } from '../api/orders.ts';
import { elapsed, fullTime, timeWithSeconds } from '../format.ts';
import { Icon, type IconName } from './icons.tsx';
import './journey-line.css';

/** The way of an order through the services, event by event, as they recorded it. */
export function JourneyLine({ order, journey }: { order: Order; journey: Journey | undefined }) {
  const stages = journey && journey.steps.length > 0 ? stagesOf(journey.steps) : [];
  const shown = stages.length > 0 ? stages : stagesFrom(order);
  const start = shown[0]?.at ?? order.createdAt;
  return (
    <ol className="journey">
      {shown.map((stage, i) => (
        <li key={stage.event} className={looks[stage.event].kind}>
          <span className="journey-icon">
            <Icon name={looks[stage.event].icon} />
          </span>
          <div className="journey-text">
            <h3>{looks[stage.event].name}</h3>
            <p className="small soft">
              <span className="journey-service">{stage.service}</span>
              <time dateTime={stage.at} title={fullTime(stage.at)} className="number">
                {timeWithSeconds(stage.at)}
              </time>
            </p>
          </div>
          <span className="journey-offset number small soft">{i === 0 ? 'start' : `+${elapsed(start, stage.at)}`}</span>
          {stage.hops.length > 0 && (
            <ul className="hops">
              {stage.hops.map((hop) => (
                <li key={hop.action + hop.service}>
                  <span>{inWords(hop)}</span>
                  <time dateTime={hop.at} title={fullTime(hop.at)} className="number">
                    +{elapsed(start, hop.at)}
                  </time>
                </li>
              ))}
            </ul>
          )}
        </li>
      ))}
      {order.status === 'Pending' && shown.length === 1 && (
        <li className="wait">
          <span className="journey-icon">
            <Icon name="clock" />
          </span>
          <div className="journey-text">
            <h3>Waiting for stock</h3>
          </div>
        </li>
      )}
    </ol>
  );
}

type Event = JourneyStep['step'];

/** One event with where it came from and what became of it. */
export interface Stage {
  event: Event;
  service: string;
  at: string;
  hops: JourneyStep[]; // published and processed
}

/** Puts the steps together by event, in the order in which the events came to be. */
export function stagesOf(steps: readonly JourneyStep[]): Stage[] {
  const stages = new Map<Event, Stage>();
  for (const step of steps) {
    // The clocks of services differ: an event may be processed before it is stored.
    const stage = stages.get(step.step);
    if (!stage) stages.set(step.step, { event: step.step, service: step.service, at: step.at, hops: step.action === 'stored' ? [] : [step] });
    else if (step.action === 'stored') Object.assign(stage, { service: step.service, at: step.at });
    else stage.hops.push(step);
  }
  return [...stages.values()];
}

/** What is known from the order alone: its beginning and its last change. */
export function stagesFrom(order: Order): Stage[] {
  const placed: Stage = { event: 'order.created', service: 'orders', at: order.createdAt, hops: [] };
  if (order.status === 'Pending') return [placed];
  const last = order.status === 'Confirmed' ? 'order.confirmed' : 'order.cancelled';
  return [placed, { event: last, service: 'orders', at: order.updatedAt, hops: [] }];
}

const looks: Readonly<Record<Event, { name: string; icon: IconName; kind: 'plain' | 'good' | 'bad' }>> = {
  'order.created': { name: 'Order placed', icon: 'bag', kind: 'plain' },
  'stock.reserved': { name: 'Stock reserved', icon: 'stock', kind: 'plain' },
  'stock.notavailable': { name: 'Stock not available', icon: 'stock', kind: 'bad' },
  'order.confirmed': { name: 'Order confirmed', icon: 'check', kind: 'good' },
  'order.cancelled': { name: 'Order cancelled', icon: 'cross', kind: 'bad' },
  'stock.released': { name: 'Stock given back', icon: 'stock', kind: 'plain' },
};

function inWords({ action, service, detail }: JourneyStep): string {
  const what = action === 'published' ? 'Published' : `Processed by ${service}`;
  return detail === 'NoEffect' ? `${what}, changed nothing` : what;
}
