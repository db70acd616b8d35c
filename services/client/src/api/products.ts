import { infiniteQueryOptions, queryOptions, type QueryClient } from '@tanstack/react-query';
import { gateway, reading, take } from './client.ts';
import { Problem } from './problem.ts';
import type { components } from './schema.ts';

export type Product = components['schemas']['Product'];
export type AddProduct = components['schemas']['AddProduct'];
export type ChangeProduct = components['schemas']['ChangeProduct'];

const pageSize = 60;

/** How long a stock figure may be old before it is read again, in ms. */
export const stockRefresh = 3000;

const catalogKey = ['products'] as const;
const productKey = (productId: string) => ['product', productId] as const;

/** The catalog, page by page, kept fresh. */
export const catalog = () =>
  infiniteQueryOptions({
    queryKey: catalogKey,
    queryFn: async (context) => {
      const page = await take(
        gateway.GET('/products', {
          params: { query: { limit: pageSize, ...(context.pageParam !== '' && { after: context.pageParam }) } },
          ...reading(context),
        }),
      );
      for (const entry of page.products) context.client.setQueryData(productKey(entry.productId), entry);
      return page;
    },
    initialPageParam: '',
    getNextPageParam: (page) => page.next,
    refetchInterval: stockRefresh,
    select: ({ pages }) => pages.flatMap((page) => page.products),
  });

/** One product, kept fresh; null when it is not sold any more. */
export const product = (productId: string) =>
  queryOptions({
    queryKey: productKey(productId),
    queryFn: async (context) => {
      try {
        return await take(gateway.GET('/products/{productId}', { params: { path: { productId } }, ...reading(context) }));
      } catch (error) {
        if (error instanceof Problem && error.status === 404) return null;
        throw error;
      }
    },
    refetchInterval: stockRefresh,
  });

/** The product as it is now, past every cache. */
export function readProduct(productId: string): Promise<Product> {
  return take(gateway.GET('/products/{productId}', { params: { path: { productId } } }));
}

export function addProduct(body: AddProduct): Promise<Product> {
  return take(gateway.POST('/products', { body }));
}

/** Changes the product if it still has the version given; else a Problem with status 412. */
export function changeProduct(productId: string, version: number, body: ChangeProduct): Promise<Product> {
  return take(gateway.PUT('/products/{productId}', { params: { path: { productId }, header: ifMatch(version) }, body }));
}

/** Adds units if the product still has the version given, so that sending it again adds them once; else a Problem with status 412. */
export function restockProduct(productId: string, version: number, quantity: number): Promise<Product> {
  return take(gateway.POST('/products/{productId}/restock', { params: { path: { productId }, header: ifMatch(version) }, body: { quantity } }));
}

/** Takes the product out of the catalog if it still has the version given. */
export async function deleteProduct(productId: string, version: number): Promise<void> {
  await take(gateway.DELETE('/products/{productId}', { params: { path: { productId }, header: ifMatch(version) } }));
}

function ifMatch(version: number): { 'If-Match': string } {
  return { 'If-Match': `"${version}"` };
}

/** Has every view of the products read again. */
export async function refreshProducts(client: QueryClient): Promise<void> {
  await Promise.all([client.invalidateQueries({ queryKey: catalogKey }), client.invalidateQueries({ queryKey: ['product'] })]);
}
