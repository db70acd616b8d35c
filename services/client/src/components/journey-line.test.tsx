import { cleanup, render, screen, within } from '@testing-library/react';
import { afterEach, describe, expect, it } from 'vitest';
import type { Journey, JourneyStep } from '../api/orders.ts';
import { anOrder } from '../testing.ts';
import { JourneyLine, stagesOf } from './journey-line.tsx';

afterEach(cleanup);

const at = (ms: number) => `2026-11-05T09:30:00.${String(ms).padStart(3, '0')}Z`;

const step = (step: JourneyStep['step'], action: JourneyStep['action'], service: JourneyStep['service'], ms: number, detail?: JourneyStep['detail']): JourneyStep => ({
  step,
  action,
  service,
  at: at(ms),
  ...(detail && { detail }),
});

const steps = [
  step('order.created', 'stored', 'orders', 0),
  step('order.created', 'published', 'orders', 4),
  step('order.created', 'processed', 'products', 9),
  step('stock.notavailable', 'stored', 'products', 12),
  step('order.cancelled', 'stored', 'orders', 20, 'StockNotAvailable'),
  step('order.cancelled', 'processed', 'products', 30, 'NoEffect'),
];

const journey: Journey = { orderId: anOrder().orderId, steps };

/** What a reader hears, event by event. */
const stages = () => screen.getAllByRole('heading').map((heading) => heading.textContent);

describe('JourneyLine', () => {
  it('tells the events in their order with what became of each', () => {
    render(<JourneyLine order={anOrder({ status: 'Cancelled', reason: 'StockNotAvailable', version: 2 })} journey={journey} />);
    expect(stages()).toEqual(['Order placed', 'Stock not available', 'Order cancelled']);
    const [placed, , cancelled] = screen.getAllByRole('listitem').filter((item) => within(item).queryByRole('heading'));
    expect(placed?.textContent).toContain('Published+4.0 ms');
    expect(placed?.textContent).toContain('Processed by products+9.0 ms');
    expect(cancelled?.textContent).toContain('+20 ms');
    expect(cancelled?.textContent).toContain('Processed by products, changed nothing');
  });

  it('says what a pending order waits for', () => {
    render(<JourneyLine order={anOrder()} journey={{ ...journey, steps: steps.slice(0, 2) }} />);
    expect(stages()).toEqual(['Order placed', 'Waiting for stock']);
  });

  it('tells what the order knows when nothing else was recorded', () => {
    const order = anOrder({ status: 'Confirmed', version: 2, updatedAt: '2026-11-05T09:30:00.141456Z' });
    render(<JourneyLine order={order} journey={undefined} />);
    expect(stages()).toEqual(['Order placed', 'Order confirmed']);
    expect(screen.getByText('+18 ms')).toBeTruthy();
  });
});

it('knows where an event came from, whatever the clocks say', () => {
  const skewed = [step('stock.reserved', 'processed', 'orders', 3), step('stock.reserved', 'stored', 'products', 5)];
  expect(stagesOf(skewed)).toMatchObject([{ event: 'stock.reserved', service: 'products', at: at(5), hops: [{ service: 'orders' }] }]);
});
