import { QueryClient } from '@tanstack/react-query';
import { Problem } from './api/problem.ts';

/** The cache of what was read. What may pass is tried again, what is wrong is not. */
export function newQueryClient(): QueryClient {
  return new QueryClient({
    defaultOptions: {
      queries: {
        staleTime: 1000,
        retry: (failures, error) => failures < 2 && error instanceof Problem && error.passing,
        retryDelay: (failures, error) => Math.max(500 * 2 ** failures, error instanceof Problem ? (error.retryAfter ?? 0) : 0),
      },
    },
  });
}
