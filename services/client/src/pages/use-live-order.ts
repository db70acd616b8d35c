import { useQuery, useQueryClient, type UseQueryResult } from '@tanstack/react-query';
import { useEffect, useState } from 'react';
import { follow, type Connection } from '../api/follow.ts';
import { journey, learn, order, orderKey, type Order } from '../api/orders.ts';
import { refreshProducts } from '../api/products.ts';

// What follows a change of state (the customer's history, stock given back) is
// recorded a moment later: when to look at the journey again, in ms.
const afterglow = [0, 400, 1200, 3000, 8000];

const askAgain = 3000; // ms

/** An order that changes as it happens, until its final state. One that may not be there yet is asked for until it is. */
export function useLiveOrder(orderId: string, awaited = false): { query: UseQueryResult<Order>; connection: Connection } {
  const client = useQueryClient();
  const [connection, setConnection] = useState<Connection>('connecting');
  // Where streams do not get through, or are held back by a proxy, asking does.
  const query = useQuery({
    ...order(orderId),
    refetchInterval: ({ state }) => (state.data ? state.data.status === 'Pending' && connection !== 'live' : awaited) && askAgain,
  });
  const pending = query.data?.status === 'Pending';
  const version = query.data?.version;

  useEffect(() => {
    if (!pending) return;
    const stop = new AbortController();
    void follow(orderId, {
      version: client.getQueryData<Order>(orderKey(orderId))?.version ?? 0,
      signal: stop.signal,
      onOrder: (read) => {
        learn(client, read);
      },
      onConnection: setConnection,
    }).catch(() => client.invalidateQueries({ queryKey: orderKey(orderId) })); // the query shows what is wrong
    return () => {
      stop.abort();
    };
  }, [client, orderId, pending]);

  useEffect(() => {
    if (version === undefined) return;
    const looks = afterglow.map((delay) => setTimeout(() => void client.invalidateQueries({ queryKey: journey(orderId).queryKey }), delay));
    void refreshProducts(client);
    return () => {
      looks.forEach(clearTimeout);
    };
  }, [client, orderId, version]);

  return { query, connection };
}
