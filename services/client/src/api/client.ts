import type { QueryFunctionContext } from '@tanstack/react-query';
import createClient from 'openapi-fetch';
import { authorizedFetch } from '../auth/session.ts';
import { noAnswer, toProblem } from './problem.ts';
import type { paths } from './schema.ts';
import { unrecorded } from './trace.ts';

/** The gateway, typed by its openapi.yaml. */
export const gateway = createClient<paths>({ baseUrl: globalThis.location.origin, fetch: authorizedFetch });

interface Answer<T> {
  data?: T;
  error?: unknown;
  response: Response;
}

/** Waits for an answer and returns its body, or throws a Problem. */
export async function take<T>(request: Promise<Answer<T>>): Promise<T> {
  return (await takeWhole(request)).data;
}

/** Like take, with the answer's headers. */
export async function takeWhole<T>(request: Promise<Answer<T>>): Promise<{ data: T; headers: Headers }> {
  let answer: Answer<T>;
  try {
    answer = await request;
  } catch (error) {
    // fetch knows no other error than TypeError for a connection that failed;
    // what was given up on purpose is no problem.
    throw error instanceof TypeError ? noAnswer() : error;
  }
  if (!answer.response.ok) throw toProblem(answer.response, answer.error);
  return { data: answer.data as T, headers: answer.response.headers };
}

/**
 * Options of a request that reads for a query. Only the first look is a
 * person's doing: the looks that keep it fresh ask not to be recorded.
 */
export function reading({ client, queryKey, signal }: QueryFunctionContext): { signal: AbortSignal; headers?: { traceparent: string } } {
  const first = client.getQueryState(queryKey)?.data === undefined;
  return first ? { signal } : { signal, headers: unrecorded() };
}
