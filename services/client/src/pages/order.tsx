import { useMutation, useQueries, useQuery, useQueryClient } from '@tanstack/react-query';
import { lazy, Suspense, useEffect, useState } from 'react';
import { Link, useLocation } from 'wouter';
import { useHistoryState } from 'wouter/use-browser-location';
import { announce } from '../announce.ts';
import type { Connection } from '../api/follow.ts';
import { cancelOrder, journey, learn, type Order } from '../api/orders.ts';
import { explain, Problem } from '../api/problem.ts';
import { product } from '../api/products.ts';
import { NotForYou } from '../auth/sign-in-first.tsx';
import { available } from '../basket/basket.ts';
import { changeBasket, lastAttempt } from '../basket/store.ts';
import { CopyButton } from '../components/copy-button.tsx';
import { Empty, Failure, Notice, Outdated, PageLoading, Skeleton } from '../components/feedback.tsx';
import { Icon } from '../components/icons.tsx';
import { JourneyLine } from '../components/journey-line.tsx';
import { ProductArt } from '../components/product-art.tsx';
import { Title } from '../components/title.tsx';
import { traceUrl } from '../config.ts';
import { count, counted, fullTime, money, shortId } from '../format.ts';
import { useShopper } from '../shopper.ts';
import { rememberedTrace } from '../traces.ts';
import { useLiveOrder } from './use-live-order.ts';
import './order.css';

const loadConfirmDialog = () => import('../components/confirm-dialog.tsx');
const ConfirmDialog = lazy(loadConfirmDialog);

/** One order: its state as it changes, what is in it, and the way it took. */
export default function OrderPage({ orderId }: { orderId: string }) {
  const attempt = useUnconfirmed();
  const { query, connection } = useLiveOrder(orderId, attempt !== undefined);
  const items = query.data?.items;
  useEffect(() => {
    if (!items || attempt === undefined || lastAttempt.get()?.key !== attempt) return;
    lastAttempt.set(null);
    changeBasket({ do: 'takeOut', lines: items });
  }, [items, attempt]);
  const title = `Order ${shortId(orderId)}`;
  return (
    <>
      <div className="page-head">
        <div>
          <Title title={title}>{title}</Title>
          {query.data && <p>Placed {fullTime(query.data.createdAt)}</p>}
        </div>
      </div>
      <Outdated when={query.isError && query.data !== undefined} />
      {query.data ? (
        <Found order={query.data} connection={connection} />
      ) : query.isError ? (
        <NotFound error={query.error} unconfirmed={attempt !== undefined} retry={() => void query.refetch()} />
      ) : query.isPaused ? (
        <Failure error={null} retry={() => void query.refetch()} />
      ) : (
        <PageLoading />
      )}
    </>
  );
}

/** The key of the attempt that may have placed this order, when its outcome is not known: see usePlacing. */
function useUnconfirmed(): string | undefined {
  const state: unknown = useHistoryState();
  const { attempt } = (state ?? {}) as { attempt?: unknown };
  return typeof attempt === 'string' ? attempt : undefined;
}

export function NotFound({ error, unconfirmed, retry }: { error: Error; unconfirmed: boolean; retry: () => void }) {
  if (error instanceof Problem && (error.status === 401 || error.status === 403)) {
    return <NotForYou icon="orders" what="see this order" needs="Customers see their own orders." />;
  }
  if (!(error instanceof Problem) || (error.status !== 404 && error.status !== 400)) return <Failure error={error} retry={retry} />;
  if (unconfirmed) {
    return (
      <div role="status">
        <Empty
          icon="clock"
          title="It is not certain whether your order was placed"
          action={
            <Link to="/basket" className="button">
              To the basket
            </Link>
          }
        >
          The shop could not tell in time. If it was placed, it appears here in a moment. If it does not, order again: your basket is kept, and the same
          basket cannot be placed twice.
        </Empty>
      </div>
    );
  }
  return (
    <Empty
      icon="orders"
      title="There is no such order"
      action={
        <Link to="/history" className="button">
          To your orders
        </Link>
      }
    >
      The address may be incomplete.
    </Empty>
  );
}

function Found({ order, connection }: { order: Order; connection: Connection }) {
  const names = useNames(order);
  return (
    <div className="order">
      <div className="order-main">
        <State order={order} connection={connection} names={names} />
        <Items order={order} names={names} />
      </div>
      <div className="order-side">
        <Way order={order} />
        <Facts order={order} />
      </div>
    </div>
  );
}

/** Names of the order's products; those that are sold no more have none. */
function useNames(order: Order): ReadonlyMap<string, string> {
  const products = useQueries({ queries: order.items.map(({ productId }) => ({ ...product(productId), refetchInterval: false as const })) });
  return new Map(order.items.map(({ productId }, i) => [productId, products[i]?.data?.name ?? `Product ${shortId(productId)}`]));
}

const headlines = {
  Pending: { icon: 'clock', kind: 'wait', title: 'Reserving stock' },
  Confirmed: { icon: 'check', kind: 'good', title: 'Confirmed' },
  Cancelled: { icon: 'cross', kind: 'bad', title: 'Cancelled' },
} as const;

const reasons = {
  StockNotAvailable: { title: 'Not enough stock', text: 'An order gets all of its items or none, so nothing was reserved.' },
  CustomerRequest: { title: 'Cancelled', text: 'Cancelled on request. What was reserved has gone back on the shelf.' },
  TimedOut: { title: 'No answer in time', text: 'Stock did not answer before the deadline, so the order was given up. Nothing stays reserved.' },
} as const;

function State({ order, connection, names }: { order: Order; connection: Connection; names: ReadonlyMap<string, string> }) {
  const { icon, kind } = headlines[order.status];
  const { title, text } = describe(order);
  const [first] = useState(order.status);
  useEffect(() => {
    if (order.status !== first) announce(`${title}. ${text}`);
  }, [order.status, first, title, text]);
  return (
    <section className={`panel state ${kind}`} aria-label="State of the order">
      <div className="state-icon">
        <Icon name={icon} />
      </div>
      <div className="state-text">
        <h2>{title}</h2>
        <p>{text}</p>
        {order.status === 'Pending' && <Live connection={connection} />}
        {order.shortages && <Shortages order={order} names={names} />}
      </div>
      <Cancel order={order} />
      {order.status === 'Pending' && <div className="state-progress" aria-hidden="true" />}
    </section>
  );
}

function describe(order: Order): { title: string; text: string } {
  switch (order.status) {
    case 'Pending':
      return { title: headlines.Pending.title, text: 'The order is stored. It usually takes less than a second to hear from the warehouse.' };
    case 'Confirmed':
      return {
        title: headlines.Confirmed.title,
        text: `All items are reserved${order.total ? ` at ${money(order.total.amountCents, order.total.currency)}` : ''}.`,
      };
    case 'Cancelled':
      return order.reason ? reasons[order.reason] : { title: headlines.Cancelled.title, text: '' };
  }
}

function Live({ connection }: { connection: Connection }) {
  return (
    <p className="state-live" role="status">
      <span className={connection === 'live' ? 'live-dot' : 'live-dot off'} />
      {connection === 'live' ? 'Watching live' : connection === 'connecting' ? 'Connecting…' : 'Connection lost. Connecting again…'}
    </p>
  );
}

function Shortages({ order, names }: { order: Order; names: ReadonlyMap<string, string> }) {
  const [, navigate] = useLocation();
  const rest = available(order);
  return (
    <>
      <ul className="shortages">
        {order.shortages?.map(({ productId, requestedQuantity, availableQuantity, reason }) => (
          <li key={productId}>
            <strong>{names.get(productId)}</strong>
            <span className="number">
              {count(requestedQuantity)} ordered,{' '}
              {reason === 'CurrencyMismatch'
                ? 'but priced in another currency than the rest of the order'
                : `${availableQuantity === 0 ? 'none' : `only ${count(availableQuantity)}`} available`}
            </span>
            <span className="shortage-bar" aria-hidden="true">
              <span style={{ inlineSize: `${(100 * availableQuantity) / requestedQuantity}%` }} />
            </span>
          </li>
        ))}
      </ul>
      {rest.length > 0 && (
        <button
          type="button"
          className="button compact"
          onClick={() => {
            for (const line of rest) changeBasket({ do: 'set', ...line });
            navigate('/basket');
          }}
        >
          Put what is available in the basket
        </button>
      )}
    </>
  );
}

function Cancel({ order }: { order: Order }) {
  const client = useQueryClient();
  const [asking, setAsking] = useState(false);
  const cancelling = useMutation({
    mutationFn: () => cancelOrder(order.orderId),
    retry: (failures, error) => failures < 2 && error instanceof Problem && error.passing, // doing it twice is doing it once
    onSuccess: (cancelled) => {
      learn(client, cancelled);
      setAsking(false);
    },
  });
  if (order.status === 'Cancelled') return null;
  return (
    <div className="state-action">
      <button
        type="button"
        className="button danger compact"
        onPointerEnter={() => void loadConfirmDialog()}
        onClick={() => {
          cancelling.reset();
          setAsking(true);
        }}
      >
        Cancel order
      </button>
      {asking && (
        <Suspense>
          <ConfirmDialog
            title="Cancel this order?"
            confirm="Cancel order"
            decline="Keep it"
            busy={cancelling.isPending}
            problem={cancelling.error && explain(cancelling.error)}
            onConfirm={() => {
              cancelling.mutate();
            }}
            close={() => {
              setAsking(false);
            }}
          >
            {counted(order.items.reduce((n, item) => n + item.quantity, 0), 'item')} will go back on the shelf for others to order. This cannot be undone.
          </ConfirmDialog>
        </Suspense>
      )}
    </div>
  );
}

function Items({ order, names }: { order: Order; names: ReadonlyMap<string, string> }) {
  const currency = order.total?.currency;
  return (
    <section className="panel items" aria-labelledby="items-title">
      <h2 id="items-title">{counted(order.items.length, 'product')}</h2>
      <ul>
        {order.items.map(({ productId, quantity, unitPriceCents }) => (
          <li key={productId}>
            <div className="thumb">
              <ProductArt id={productId} name={names.get(productId) ?? ''} />
            </div>
            <div>
              <h3>{names.get(productId)}</h3>
              <p className="soft small number">
                {unitPriceCents === undefined ? counted(quantity, 'unit') : count(quantity)}
                {unitPriceCents !== undefined && currency !== undefined && ` × ${money(unitPriceCents, currency)}`}
              </p>
            </div>
            <p className="number items-price">
              {unitPriceCents !== undefined && currency !== undefined && money(unitPriceCents * quantity, currency)}
            </p>
          </li>
        ))}
      </ul>
      {order.total && (
        <p className="items-total">
          <span>Total</span>
          <span className="number">{money(order.total.amountCents, order.total.currency)}</span>
        </p>
      )}
    </section>
  );
}

function Way({ order }: { order: Order }) {
  const way = useQuery(journey(order.orderId));
  const traceId = way.data?.traceId ?? rememberedTrace(order.orderId);
  const link = traceId === undefined ? undefined : traceUrl(traceId);
  return (
    <section className="panel side-panel" aria-labelledby="journey-title">
      <h2 id="journey-title">Journey</h2>
      {way.isPending && !way.isPaused ? <Skeleton height="9rem" /> : <JourneyLine order={order} journey={way.data} />}
      {way.isError && !way.data && <Notice kind="wait">The steps in between cannot be read right now. This is what the order itself says.</Notice>}
      {way.data?.missing && <Notice kind="wait">Not all could be asked: what {way.data.missing.join(' and ')} recorded is missing.</Notice>}
      {link !== undefined && (
        <a className="button quiet compact wide" href={link} target="_blank" rel="noreferrer">
          Open the trace in Jaeger
          <Icon name="external" />
        </a>
      )}
    </section>
  );
}

function Facts({ order }: { order: Order }) {
  const way = useQuery(journey(order.orderId));
  const own = order.customerId === useShopper().customerId;
  const traceId = way.data?.traceId ?? rememberedTrace(order.orderId);
  return (
    <section className="panel side-panel" aria-labelledby="facts-title">
      <h2 id="facts-title">Details</h2>
      <dl className="facts">
        <div>
          <dt>Order</dt>
          <dd>
            <span className="mono">{order.orderId}</span>
            <CopyButton text={order.orderId} label="Copy the order's id" />
          </dd>
        </div>
        <div>
          <dt>Customer</dt>
          <dd>
            <Link to={own ? '/history' : `/history/${order.customerId}`}>
              {own ? 'You' : <span className="mono">{order.customerId}</span>}
            </Link>
          </dd>
        </div>
        {traceId !== undefined && (
          <div>
            <dt>Trace</dt>
            <dd>
              <span className="mono">{traceId}</span>
              <CopyButton text={traceId} label="Copy the trace's id" />
            </dd>
          </div>
        )}
      </dl>
    </section>
  );
}
