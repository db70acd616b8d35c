import { cleanup, render, screen } from '@testing-library/react';
import { afterEach, describe, expect, it, vi } from 'vitest';
import { Problem } from '../api/problem.ts';
import { NotFound } from './order.tsx';

afterEach(cleanup);

describe('an order that is not there', () => {
  const missing = new Problem({ type: '/problems/not-found', title: 'Not found', status: 404 });

  it('is said not to exist', () => {
    render(<NotFound error={missing} unconfirmed={false} retry={vi.fn()} />);
    expect(screen.getByText('There is no such order')).toBeTruthy();
  });

  it('may still come when nobody knows whether it was placed', () => {
    render(<NotFound error={missing} unconfirmed retry={vi.fn()} />);
    expect(screen.getByText('It is not certain whether your order was placed')).toBeTruthy();
    expect(screen.queryByText('Try again')).toBeNull();
    expect(screen.getByText('To the basket').getAttribute('href')).toBe('/basket');
  });
});
