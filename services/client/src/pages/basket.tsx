import { useMutation, useMutationState, useQueries, useQueryClient } from '@tanstack/react-query';
import { Link, useLocation } from 'wouter';
import { announce } from '../announce.ts';
import { learn, placeOrder } from '../api/orders.ts';
import { explain, Problem } from '../api/problem.ts';
import { signIn, useSession } from '../auth/session.ts';
import { product, type Product } from '../api/products.ts';
import { attempt, perhapsPlaced, type Line } from '../basket/basket.ts';
import { changeBasket, lastAttempt, useBasket } from '../basket/store.ts';
import { Empty, Notice, Skeleton } from '../components/feedback.tsx';
import { Icon } from '../components/icons.tsx';
import { ProductArt } from '../components/product-art.tsx';
import { QuantityField } from '../components/quantity-field.tsx';
import { StockLevel } from '../components/stock-level.tsx';
import { Title } from '../components/title.tsx';
import { count, counted, money } from '../format.ts';
import { usePersisted } from '../persisted.ts';
import { randomUUID } from '../random.ts';
import { useShopper, useShopperName } from '../shopper.ts';
import { rememberTrace } from '../traces.ts';
import './basket.css';

/** A line with its product: undefined while it is read, null when it is not sold any more. */
interface Priced extends Line {
  product: Product | null | undefined;
}

export default function BasketPage() {
  const basket = useBasket();
  const products = useQueries({ queries: basket.map(({ productId }) => product(productId)) });
  const lines = basket.map((line, i): Priced => ({ ...line, product: products[i]?.data }));
  return (
    <>
      <div className="page-head">
        <Title title="Basket">Basket</Title>
        {basket.length > 0 && (
          <button
            type="button"
            className="button plain compact"
            onClick={() => {
              changeBasket({ do: 'clear' });
              announce('The basket is empty');
            }}
          >
            Empty the basket
          </button>
        )}
      </div>
      {basket.length === 0 ? (
        <Empty
          icon="bag"
          title="Your basket is empty"
          action={
            <Link to="/" className="button">
              To the shop
            </Link>
          }
        >
          What you put in stays here, also when you close the window.
        </Empty>
      ) : (
        <div className="basket">
          <ul className="panel lines">
            {lines.map((line) => (
              <BasketLine key={line.productId} line={line} />
            ))}
          </ul>
          <Summary lines={lines} unread={products.some((query) => query.isError && query.data === undefined)} />
        </div>
      )}
    </>
  );
}

function BasketLine({ line: { productId, quantity, product } }: { line: Priced }) {
  const name = product === null ? 'No longer sold' : (product?.name ?? 'Product');
  return (
    <li className="line">
      <div className="thumb line-thumb">
        <ProductArt id={productId} {...(product && { name: product.name })} />
      </div>
      <div className="line-name">
        <h2>{product === undefined ? <Skeleton height="1.2em" width="12rem" /> : name}</h2>
        {product && (
          <>
            <p className="soft number">{money(product.priceCents, product.currency)} each</p>
            <StockLevel stock={product.stock} />
          </>
        )}
      </div>
      <div className="line-quantity">
        {product !== null && (
          <QuantityField
            value={quantity}
            label={`Quantity of ${name}`}
            onChange={(n) => {
              changeBasket({ do: 'set', productId, quantity: n });
            }}
          />
        )}
      </div>
      <p className="line-total number">{product && money(product.priceCents * quantity, product.currency)}</p>
      <button
        type="button"
        className="round-button line-remove"
        aria-label={`Take out ${name}`}
        onClick={() => {
          changeBasket({ do: 'set', productId, quantity: 0 });
          announce(`${name} taken out of the basket`);
        }}
      >
        <Icon name="cross" />
      </button>
      {product && quantity > product.stock && (
        <div className="line-warning">
          <Notice kind="wait">
            {product.stock === 0 ? 'There are none left' : `There are only ${count(product.stock)} left`} right now. An order gets all of its items or
            none, so this one would be cancelled unless stock comes in.
            {product.stock > 0 && (
              <button
                type="button"
                className="button quiet compact"
                onClick={() => {
                  changeBasket({ do: 'set', productId, quantity: product.stock });
                  announce(`${count(product.stock)} of ${name} in the basket`);
                }}
              >
                Take {count(product.stock)}
              </button>
            )}
          </Notice>
        </div>
      )}
      {product === null && (
        <div className="line-warning">
          <Notice kind="bad">This product was taken out of the catalog. Take it out of the basket to order the rest.</Notice>
        </div>
      )}
    </li>
  );
}

function Summary({ lines, unread }: { lines: Priced[]; unread: boolean }) {
  const signedOut = useSession().kind === 'out';
  const { customerId } = useShopper();
  const name = useShopperName();
  const placing = usePlacing();
  const known = lines.flatMap(({ product, quantity }) => (product ? [{ product, quantity }] : []));
  const currencies = new Set(known.map(({ product }) => product.currency));
  const complete = known.length === lines.length;
  const [currency] = currencies;
  const blocked = !complete || currencies.size > 1 || customerId === '';

  return (
    <section className="panel summary" aria-labelledby="summary-title">
      <h2 id="summary-title">Your order</h2>
      <dl>
        <div>
          <dt>{counted(lines.reduce((n, line) => n + line.quantity, 0), 'item')}</dt>
          <dd className="number">{currencies.size === 1 && currency !== undefined && money(total(known), currency)}</dd>
        </div>
        <div>
          <dt>Ordered by</dt>
          <dd>{signedOut ? 'Nobody yet' : (name ?? 'Guest')}</dd>
        </div>
        {currencies.size === 1 && currency !== undefined && (
          <div className="summary-total">
            <dt>Total</dt>
            <dd className="number">{money(total(known), currency)}</dd>
          </div>
        )}
      </dl>
      {unread && <Notice kind="wait">Not all prices can be read right now. Trying again…</Notice>}
      {currencies.size > 1 && (
        <Notice kind="wait">An order has one currency, and these products have {[...currencies].join(' and ')}. Order them separately.</Notice>
      )}
      {customerId === '' && <Notice kind="wait">Your account is not a customer's, so it cannot order.</Notice>}
      {placing.error && <PlacingFailed error={placing.error} />}
      <button
        type="button"
        className="button wide"
        aria-disabled={blocked || placing.isPending}
        onClick={() => {
          if (blocked || placing.isPending) return;
          if (signedOut) void signIn();
          else placing.mutate({ customerId, items: lines.map(({ productId, quantity }) => ({ productId, quantity })) });
        }}
      >
        {signedOut ? 'Sign in to order' : placing.isPaused ? 'Waiting for a connection…' : placing.isPending ? (placing.failureCount > 0 ? 'Trying again in a moment…' : 'Placing the order…') : placing.error ? 'Try again' : 'Place order'}
      </button>
      <p className="small soft">Prices are fixed when stock is reserved. You can cancel at any time.</p>
    </section>
  );
}

function total(lines: readonly { product: Product; quantity: number }[]): number {
  return lines.reduce((sum, { product, quantity }) => sum + product.priceCents * quantity, 0);
}

const placingKey = ['place'];

/** Places what is in the basket and goes to the order, unless the shopper has gone elsewhere. */
function usePlacing() {
  const client = useQueryClient();
  const [, navigate] = useLocation();
  const goOn = (...to: Parameters<typeof navigate>) => {
    if (globalThis.location.pathname === '/basket') navigate(...to);
  };
  const { mutate } = useMutation({
    mutationKey: placingKey,
    mutationFn: async (body: Parameters<typeof placeOrder>[0]) => {
      const tried = attempt(lastAttempt.get(), body, randomUUID);
      lastAttempt.set(tried);
      return placeOrder(tried.body, tried.key);
    },
    // The attempt's key makes it safe to send again what may have been received.
    retry: (failures, error) => failures < 3 && error instanceof Problem && error.passing && !error.outcomeUnknown,
    retryDelay: (failures, error) => Math.max(400 * 2 ** failures, error instanceof Problem ? (error.retryAfter ?? 0) : 0),
    onSuccess: ({ order, traceId }) => {
      if (traceId !== undefined) rememberTrace(order.orderId, traceId);
      learn(client, order);
      lastAttempt.set(null);
      changeBasket({ do: 'takeOut', lines: order.items }); // there may be more in it by now
      goOn(`/order/${order.orderId}`);
    },
    onError: (error) => {
      const orderId = perhapsPlaced(error);
      // The basket stays until the order is seen.
      if (orderId !== undefined) goOn(`/order/${orderId}`, { state: { attempt: lastAttempt.get()?.key } });
    },
  });
  // useMutation forgets its state when the page unmounts; the mutation cache still knows of an order that is being placed.
  const last = useMutationState({ filters: { mutationKey: placingKey } }).at(-1);
  const settled = usePersisted(lastAttempt) === null;
  return {
    mutate,
    isPending: last?.status === 'pending',
    isPaused: last?.status === 'pending' && last.isPaused,
    failureCount: last?.failureCount ?? 0,
    error: settled ? null : (last?.error ?? null),
  };
}

function PlacingFailed({ error }: { error: Error }) {
  const { title, text } = explain(error);
  const passing = error instanceof Problem && error.passing;
  return (
    <div role="alert">
      <Notice kind="bad">
        <strong>{title}.</strong> {passing ? 'Your basket is kept, and trying again cannot place the order twice.' : text}
      </Notice>
    </div>
  );
}
