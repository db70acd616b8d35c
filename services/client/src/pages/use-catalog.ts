import { useInfiniteQuery } from '@tanstack/react-query';
import { useEffect } from 'react';
import { useSearchParams } from 'wouter';
import { catalog, type Product } from '../api/products.ts';

/** The catalog, live, and the part of it that the address searches for (?q=). */
export function useCatalog() {
  const shop = useInfiniteQuery(catalog());
  const [parameters, setParameters] = useSearchParams();
  const search = parameters.get('q') ?? '';
  const { hasNextPage, isFetching, fetchNextPage } = shop;

  // The list comes in pages; a search looks at all of them.
  useEffect(() => {
    if (search !== '' && hasNextPage && !isFetching) void fetchNextPage();
  }, [search, hasNextPage, isFetching, fetchNextPage]);

  return {
    shop,
    search,
    setSearch: (q: string) => {
      setParameters(q === '' ? {} : { q }, { replace: true });
    },
    found: shop.data && matching(shop.data, search),
  };
}

/** The products whose name has every word of the search. */
export function matching(products: readonly Product[], search: string): readonly Product[] {
  const words = search.toLowerCase().split(/\s+/).filter(Boolean);
  return words.length === 0 ? products : products.filter(({ name }) => words.every((word) => name.toLowerCase().includes(word)));
}
