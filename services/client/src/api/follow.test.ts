import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { anOrder } from '../testing.ts';
import { follow, type Connection } from './follow.ts';
import type { Order } from './orders.ts';

/** One connection as the server sees it. */
class Stream {
  readonly request: Request;
  readonly #sink: ReadableStreamDefaultController<Uint8Array>;
  readonly response: Response;

  constructor(request: Request) {
    this.request = request;
    let sink: ReadableStreamDefaultController<Uint8Array> | undefined;
    const body = new ReadableStream<Uint8Array>({ start: (controller) => { sink = controller; } });
    if (!sink) throw new Error('a stream starts at once');
    this.#sink = sink;
    this.response = new Response(body, { headers: { 'Content-Type': 'text/event-stream' } });
    request.signal.addEventListener('abort', () => { this.#sink.error(new DOMException('aborted', 'AbortError')); });
  }

  get lastEventId(): string | null {
    return this.request.headers.get('Last-Event-ID');
  }

  write(text: string): void {
    this.#sink.enqueue(new TextEncoder().encode(text));
  }

  send(order: Order): void {
    this.write(`event: order\nid: ${order.version}\ndata: ${JSON.stringify(order)}\n\n`);
  }

  end(): void {
    this.#sink.close();
  }

  break(): void {
    this.#sink.error(new TypeError('network error'));
  }
}

const confirmed = anOrder({ status: 'Confirmed', version: 2 });

function start(version = 0) {
  const streams: Stream[] = [];
  const answers: (Response | Error)[] = []; // instead of streams, in their order
  vi.stubGlobal(
    'fetch',
    vi.fn((request: Request) => {
      const answer = answers.shift();
      if (answer instanceof Error) return Promise.reject(answer);
      if (answer) return Promise.resolve(answer);
      const stream = new Stream(request);
      streams.push(stream);
      return Promise.resolve(stream.response);
    }),
  );
  const stop = new AbortController();
  const orders: Order[] = [];
  const connections: Connection[] = [];
  const begin = () =>
    follow(confirmed.orderId, {
      version,
      signal: stop.signal,
      onOrder: (order) => orders.push(order),
      onConnection: (connection) => connections.push(connection),
    });
  const stream = async (n: number): Promise<Stream> => {
    await vi.waitFor(
      () => {
        expect(streams.length).toBeGreaterThanOrEqual(n);
      },
      { timeout: 10_000 },
    );
    const found = streams[n - 1];
    if (!found) throw new Error('cannot happen: see above');
    return found;
  };
  return { streams, answers, stop, orders, connections, begin, stream };
}

beforeEach(() => {
  vi.useFakeTimers({ shouldAdvanceTime: true, advanceTimeDelta: 50 });
});

afterEach(() => {
  vi.useRealTimers();
});

describe('follow', () => {
  it('hands on each state and ends with the final one', async () => {
    const t = start();
    const done = t.begin();
    const stream = await t.stream(1);
    expect(stream.request.url).toBe(`http://localhost:3000/orders/${confirmed.orderId}/events`);
    expect(stream.lastEventId).toBeNull();
    stream.send(anOrder());
    stream.send(confirmed);
    await done;
    expect(t.orders.map((order) => order.status)).toEqual(['Pending', 'Confirmed']);
    expect(t.connections).toEqual(['connecting', 'live']);
  });

  it('reads events that come in pieces, between comments', async () => {
    const t = start();
    const done = t.begin();
    const stream = await t.stream(1);
    const text = `:\n\nevent: order\nid: 2\ndata: ${JSON.stringify(confirmed)}\n\n`;
    for (const piece of text.match(/.{1,7}/gs) ?? []) stream.write(piece);
    await done;
    expect(t.orders).toEqual([confirmed]);
  });

  it('is live when something has come, not when it was answered', async () => {
    const t = start();
    const done = t.begin();
    const stream = await t.stream(1);
    await vi.advanceTimersByTimeAsync(20_000);
    expect(t.connections).toEqual(['connecting']);
    stream.write(':\n\n');
    await vi.waitFor(() => { expect(t.connections).toEqual(['connecting', 'live']); });
    stream.send(confirmed);
    await done;
    expect(t.connections).toEqual(['connecting', 'live']);
  });

  it('takes up where a connection broke', async () => {
    const t = start();
    const done = t.begin();
    const first = await t.stream(1);
    first.send(anOrder({ version: 3 }));
    await vi.waitFor(() => { expect(t.orders).toHaveLength(1); });
    first.break();
    const second = await t.stream(2);
    expect(second.lastEventId).toBe('3');
    second.send({ ...confirmed, version: 4 });
    await done;
    expect(t.orders.map((order) => order.version)).toEqual([3, 4]);
    expect(t.connections).toEqual(['connecting', 'live', 'lost', 'connecting', 'live']);
  });

  it('takes up where the server ended the stream', async () => {
    const t = start(1);
    const done = t.begin();
    const first = await t.stream(1);
    expect(first.lastEventId).toBe('1');
    first.end();
    (await t.stream(2)).send(confirmed);
    await done;
    expect(t.orders).toEqual([confirmed]);
  });

  it('leaves out what it has seen', async () => {
    const t = start(1);
    const done = t.begin();
    const stream = await t.stream(1);
    stream.send(anOrder({ version: 1 }));
    stream.send(confirmed);
    await done;
    expect(t.orders).toEqual([confirmed]);
  });

  it.each([
    ['the network', new TypeError('fetch failed')],
    ['the gateway', new Response('{}', { status: 503, headers: { 'Retry-After': '1' } })],
    ['an error of the server', new Response('oops', { status: 500 })],
  ])('tries again after %s refused', async (_, refusal) => {
    const t = start();
    t.answers.push(refusal);
    const done = t.begin();
    (await t.stream(1)).send(confirmed);
    await done;
    expect(t.connections).toEqual(['connecting', 'lost', 'connecting', 'live']);
  });

  it('waits longer from time to time', async () => {
    vi.spyOn(Math, 'random').mockReturnValue(0.5); // no jitter
    const t = start();
    const times: number[] = [];
    vi.stubGlobal('fetch', () => {
      times.push(Date.now());
      return Promise.reject(new TypeError('fetch failed'));
    });
    void t.begin();
    await vi.advanceTimersByTimeAsync(60_000);
    t.stop.abort();
    const waits = times.slice(1).map((time, i) => time - (times[i] ?? 0));
    expect(waits.slice(0, 4)).toEqual([300, 600, 1200, 2400]);
    expect(Math.max(...waits)).toBe(15_000);
  });

  it('tries at once when the browser is online again', async () => {
    const t = start();
    t.answers.push(new Response('{}', { status: 503, headers: { 'Retry-After': '600' } }));
    const done = t.begin();
    await vi.waitFor(() => { expect(t.connections).toContain('lost'); });
    globalThis.dispatchEvent(new Event('online'));
    (await t.stream(1)).send(confirmed);
    await done;
  });

  it('gives up a connection that has gone silent', async () => {
    const t = start();
    const done = t.begin();
    const first = await t.stream(1);
    await vi.advanceTimersByTimeAsync(30_000);
    first.write(':\n\n'); // still there
    await vi.advanceTimersByTimeAsync(30_000);
    expect(t.streams).toHaveLength(1);
    await vi.advanceTimersByTimeAsync(10_000);
    (await t.stream(2)).send(confirmed);
    await done;
  });

  it('ends with the problem when there is no such order', async () => {
    const t = start();
    t.answers.push(new Response(JSON.stringify({ type: '/problems/not-found', title: 'Not found', status: 404 }), { status: 404 }));
    await expect(t.begin()).rejects.toMatchObject({ type: '/problems/not-found', status: 404 });
  });

  it('ends when the known state is the final one', async () => {
    const { answers, streams, orders, begin } = start(2);
    answers.push(new Response(null, { status: 204 }));
    await expect(begin()).resolves.toBeUndefined();
    expect(orders).toEqual([]);
    expect(streams).toEqual([]);
  });

  it('ends without a word when it is stopped', async () => {
    const t = start();
    const done = t.begin();
    await t.stream(1);
    t.stop.abort();
    await expect(done).resolves.toBeUndefined();
  });
});
