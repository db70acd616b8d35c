import { createParser } from 'eventsource-parser';
import { authorizedFetch } from '../auth/session.ts';
import type { Order } from './orders.ts';
import { noAnswer, Problem, toProblem } from './problem.ts';
import { unrecorded } from './trace.ts';

/** A connection is live once something came through: its head alone may come from a proxy that holds the rest back. */
export type Connection = 'connecting' | 'live' | 'lost';

export interface Follower {
  /** A state of the order that is newer than all before. */
  onOrder: (order: Order) => void;
  onConnection: (connection: Connection) => void;
  /** Ends following without a word. */
  signal: AbortSignal;
  /** The version that is known already; 0 for none. */
  version: number;
}

// The server writes something at least every 15 s. A connection that is silent
// for longer than two of these has died without telling.
const silence = 35_000;

const firstDelay = 300;
const longestDelay = 15_000;

/**
 * Follows an order until its final state. A connection that is lost, refused
 * or silent is opened again, forever, and takes up where the last one ended
 * (Last-Event-ID). Rejects only with a Problem that no retry can cure.
 *
 * This is not EventSource: that one gives up on a 503, cannot say who asks,
 * cannot be part of a trace, and never notices a dead connection.
 */
export async function follow(orderId: string, follower: Follower): Promise<void> {
  let { version } = follower;
  let delay = firstDelay;
  for (;;) {
    follower.onConnection('connecting');
    let wait = delay;
    try {
      for await (const order of events(orderId, version, follower)) {
        delay = wait = firstDelay; // what carries something is in order
        if (order.version <= version) continue;
        version = order.version;
        follower.onOrder(order);
        if (order.status !== 'Pending') return;
      }
    } catch (error) {
      if (follower.signal.aborted || error instanceof NothingToCome) return;
      if (error instanceof Problem && error.status >= 400 && error.status < 500) throw error;
      wait = Math.max(delay * (0.5 + Math.random()), error instanceof Problem ? (error.retryAfter ?? 0) : 0);
    }
    follower.onConnection('lost');
    await pause(wait, follower.signal);
    if (follower.signal.aborted) return;
    delay = Math.min(delay * 2, longestDelay);
  }
}

/** The version that is known is the final one. */
class NothingToCome extends Error {}

/** The orders of one connection, until it ends or breaks. */
async function* events(orderId: string, version: number, { onConnection, signal }: Follower): AsyncGenerator<Order> {
  const connection = new AbortController();
  const watchdog = new Watchdog(silence, () => {
    connection.abort();
  });
  try {
    const response = await open(orderId, version, AbortSignal.any([signal, connection.signal]));
    let live = false;
    const received: Order[] = [];
    const parser = createParser({
      onEvent: ({ event, data }) => {
        if (event === 'order') received.push(JSON.parse(data) as Order);
      },
    });
    const text = response.body?.pipeThrough(new TextDecoderStream()).getReader();
    for (;;) {
      const chunk = await text?.read();
      if (!chunk || chunk.done) return;
      watchdog.reset();
      if (!live) onConnection('live');
      live = true;
      parser.feed(chunk.value);
      yield* received.splice(0);
    }
  } finally {
    watchdog.stop();
    connection.abort();
  }
}

async function open(orderId: string, version: number, signal: AbortSignal): Promise<Response> {
  let response: Response;
  try {
    const url = new URL(`/orders/${encodeURIComponent(orderId)}/events`, globalThis.location.origin);
    response = await authorizedFetch(
      new Request(url, {
        signal,
        cache: 'no-store',
        headers: { ...unrecorded(), Accept: 'text/event-stream', ...(version > 0 && { 'Last-Event-ID': String(version) }) },
      }),
    );
  } catch (error) {
    throw error instanceof TypeError ? noAnswer() : error;
  }
  if (!response.ok) throw toProblem(response, await response.json().catch(() => undefined));
  if (response.status === 204) throw new NothingToCome();
  return response;
}

/** Calls back when it was not reset for the given time, in ms. */
class Watchdog {
  readonly #time: number;
  readonly #bite: () => void;
  #timer: ReturnType<typeof setTimeout>;

  constructor(time: number, bite: () => void) {
    this.#time = time;
    this.#bite = bite;
    this.#timer = setTimeout(bite, time);
  }

  reset(): void {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(this.#bite, this.#time);
  }

  stop(): void {
    clearTimeout(this.#timer);
  }
}

/** Waits, but not on when the browser comes back online. */
function pause(time: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const done = () => {
      clearTimeout(timer);
      signal.removeEventListener('abort', done);
      globalThis.removeEventListener('online', done);
      resolve();
    };
    const timer = setTimeout(done, time);
    signal.addEventListener('abort', done);
    globalThis.addEventListener('online', done);
  });
}
