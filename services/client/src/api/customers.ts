import { infiniteQueryOptions, queryOptions } from '@tanstack/react-query';
import { gateway, reading, take } from './client.ts';
import { Problem } from './problem.ts';
import type { components } from './schema.ts';

export type Customer = components['schemas']['Customer'];
export type HistoryEntry = components['schemas']['HistoryEntry'];

const pageSize = 25;

export const customersKey = ['customers'] as const;
export const customerKey = (customerId: string) => ['customer', customerId] as const;

/** Customers that have a profile. */
export const customers = () =>
  infiniteQueryOptions({
    queryKey: customersKey,
    queryFn: (context) =>
      take(
        gateway.GET('/customers', {
          params: { query: { limit: pageSize, ...(context.pageParam !== '' && { after: context.pageParam }) } },
          ...reading(context),
        }),
      ),
    initialPageParam: '',
    getNextPageParam: (page) => page.next,
    select: ({ pages }) => pages.flatMap((page) => page.customers),
  });

/** A customer's profile; null for one who is known only from orders. */
export const customer = (customerId: string) =>
  queryOptions({
    queryKey: customerKey(customerId),
    queryFn: async (context) => {
      try {
        return await take(gateway.GET('/customers/{customerId}', { params: { path: { customerId } }, ...reading(context) }));
      } catch (error) {
        if (error instanceof Problem && error.status === 404) return null;
        throw error;
      }
    },
    staleTime: 60_000,
  });

export function addCustomer(body: components['schemas']['AddCustomer']): Promise<Customer> {
  return take(gateway.POST('/customers', { body }));
}

/** What a customer has ordered, newest first, kept fresh. */
export const history = (customerId: string) =>
  infiniteQueryOptions({
    queryKey: ['history', customerId],
    queryFn: (context) =>
      take(
        gateway.GET('/customers/{customerId}/orders', {
          params: { path: { customerId }, query: { limit: pageSize, ...(context.pageParam !== '' && { after: context.pageParam }) } },
          ...reading(context),
        }),
      ),
    initialPageParam: '',
    getNextPageParam: (page) => page.next,
    refetchInterval: 4000,
    select: ({ pages }) => pages.flatMap((page) => page.orders),
  });
