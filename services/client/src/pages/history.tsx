import { useInfiniteQuery, useQueries, useQuery } from '@tanstack/react-query';
import { Link } from 'wouter';
import { customer, history, type HistoryEntry } from '../api/customers.ts';
import { product } from '../api/products.ts';
import { useSession } from '../auth/session.ts';
import { NotForYou } from '../auth/sign-in-first.tsx';
import { Empty, Failure, More, Outdated, Skeleton } from '../components/feedback.tsx';
import { ProductArt } from '../components/product-art.tsx';
import { StatusBadge } from '../components/status-badge.tsx';
import { Title } from '../components/title.tsx';
import { count, dayName, money, shortId, timeOfDay } from '../format.ts';
import { useShopper, useShopperName } from '../shopper.ts';
import './history.css';

/** What a customer has ordered: the shopper, or the one in the address. */
export default function HistoryPage({ customerId: given }: { customerId?: string }) {
  const session = useSession();
  const shopper = useShopper();
  const customerId = given ?? shopper.customerId;
  if (session.kind !== 'out' && customerId !== '') return <History customerId={customerId} own={customerId === shopper.customerId} />;
  return (
    <>
      <div className="page-head">
        <Title title="Your orders">Your orders</Title>
      </div>
      <NotForYou icon="orders" what="have orders" needs="Customers see here what they have ordered." />
    </>
  );
}

function History({ customerId, own }: { customerId: string; own: boolean }) {
  const shopperName = useShopperName();
  const profile = useQuery({ ...customer(customerId), enabled: !own });
  const orders = useInfiniteQuery(history(customerId));
  const title = own ? 'Your orders' : `Orders of ${profile.data?.name ?? `customer ${shortId(customerId)}`}`;
  return (
    <>
      <div className="page-head">
        <div>
          <Title title={title}>{title}</Title>
          <p>{own ? `Ordered as ${shopperName ?? 'guest'}` : customerId}</p>
        </div>
      </div>
      <Outdated when={orders.isError && orders.data !== undefined} />
      {orders.isPending && (orders.isPaused ? <Failure error={null} retry={() => void orders.refetch()} /> : <RowSkeletons />)}
      {orders.isError && orders.data === undefined && <Failure error={orders.error} retry={() => void orders.refetch()} />}
      {orders.data?.length === 0 && (
        <Empty
          icon="orders"
          title="No orders yet"
          action={
            <Link to="/" className="button">
              To the shop
            </Link>
          }
        >
          {own ? 'What you order shows up here a moment later.' : 'Nothing was ordered by this customer.'}
        </Empty>
      )}
      {orders.data && <Days orders={orders.data} />}
      <More query={orders} />
    </>
  );
}

/** Entries under the day they were placed on, in their order. */
export function byDay(orders: readonly HistoryEntry[], now?: Date): { day: string; orders: HistoryEntry[] }[] {
  const days: { day: string; orders: HistoryEntry[] }[] = [];
  for (const order of orders) {
    const day = dayName(order.createdAt ?? order.updatedAt, now);
    const last = days.at(-1);
    if (last?.day === day) last.orders.push(order);
    else days.push({ day, orders: [order] });
  }
  return days;
}

function Days({ orders }: { orders: readonly HistoryEntry[] }) {
  const names = useNames(orders);
  return byDay(orders).map(({ day, orders }) => (
    <section key={day} className="day" aria-label={day}>
      <h2>{day}</h2>
      <ul className="panel">
        {orders.map((order) => (
          <Row key={order.orderId} order={order} names={names} />
        ))}
      </ul>
    </section>
  ));
}

const shownThumbs = 3;

/** Names of the products that the rows show. */
function useNames(orders: readonly HistoryEntry[]): ReadonlyMap<string, string> {
  const ids = [...new Set(orders.flatMap((order) => order.items.slice(0, shownThumbs).map((item) => item.productId)))];
  const products = useQueries({ queries: ids.map((id) => ({ ...product(id), refetchInterval: false as const, staleTime: 60_000 })) });
  return new Map(ids.map((id, i) => [id, products[i]?.data?.name ?? `Product ${shortId(id)}`]));
}

const reasons = {
  StockNotAvailable: 'Not enough stock',
  CustomerRequest: 'On request',
  TimedOut: 'No answer in time',
} as const;

function Row({ order, names }: { order: HistoryEntry; names: ReadonlyMap<string, string> }) {
  const [first] = order.items;
  const others = order.items.length - 1;
  const units = order.items.reduce((n, item) => n + item.quantity, 0);
  return (
    <li>
      <Link to={`/order/${order.orderId}`} className="row">
        <span className="row-thumbs">
          {order.items.slice(0, shownThumbs).map(({ productId }) => (
            <span key={productId} className="thumb">
              <ProductArt id={productId} name={names.get(productId) ?? ''} />
            </span>
          ))}
        </span>
        <span className="row-text">
          <span className="row-name">
            {first ? `${names.get(first.productId) ?? ''}${others > 0 ? ` and ${count(others)} more` : ''}` : `Order ${shortId(order.orderId)}`}
          </span>
          <span className="soft small number">
            {timeOfDay(order.createdAt ?? order.updatedAt)} · {count(units)} {units === 1 ? 'item' : 'items'} · {shortId(order.orderId)}
          </span>
        </span>
        <span className="row-status">
          <StatusBadge status={order.status} />
          {order.reason && <span className="soft small">{reasons[order.reason]}</span>}
        </span>
        <span className={order.status === 'Cancelled' ? 'row-total number void' : 'row-total number'}>{order.total ? money(order.total.amountCents, order.total.currency) : '–'}</span>
      </Link>
    </li>
  );
}

function RowSkeletons() {
  return (
    <div role="status" className="day">
      <span className="visually-hidden">Loading the orders</span>
      <div className="row-skeletons">
        {Array.from({ length: 5 }, (_, i) => (
          <Skeleton key={i} height="5rem" />
        ))}
      </div>
    </div>
  );
}
