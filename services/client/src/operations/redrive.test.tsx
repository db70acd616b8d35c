import { QueryClient, QueryClientProvider } from '@tanstack/react-query';
import { cleanup, render, screen, within } from '@testing-library/react';
import userEvent from '@testing-library/user-event';
import { afterEach, describe, expect, it, vi } from 'vitest';
import { redriveRefresh, takenLetters } from '../api/deadletters.ts';
import { Problem } from '../api/problem.ts';
import StartDialog from './start-dialog.tsx';

afterEach(cleanup);

const mine = '0198e1b2-7c3d-7a10-9f00-3c5f1d2b4a77';
const taken = new Problem({
  type: '/problems/conflict',
  title: 'Conflict',
  status: 409,
  errors: [17, 18].map((id) => ({ field: `letters[${id}]`, detail: `belongs to the running redrive ${mine}` })),
});

describe('a start that others have letters of', () => {
  it('names every letter, and starts without them when told to', async () => {
    const start = vi.fn().mockRejectedValueOnce(taken).mockResolvedValueOnce({});
    const close = vi.fn();
    render(
      <QueryClientProvider client={new QueryClient()}>
        <StartDialog letters={3} start={start} close={close} />
      </QueryClientProvider>,
    );
    const user = userEvent.setup();
    await user.click(screen.getByRole('button', { name: 'Start' }));
    const alert = await screen.findByRole('alert');
    expect(within(alert).getAllByRole('listitem').map((item) => item.textContent)).toEqual(['Letter 17 by redrive 1D2B4A77', 'Letter 18 by redrive 1D2B4A77']);
    expect(close).not.toHaveBeenCalled();
    await user.click(screen.getByRole('checkbox', { name: 'Start without them' }));
    await user.click(screen.getByRole('button', { name: 'Start' }));
    expect(start.mock.calls).toEqual([['', false], ['', true]]);
    await vi.waitFor(() => {
      expect(close).toHaveBeenCalled();
    });
  });

  it('is told from one that is no draft any more', () => {
    expect(takenLetters(taken)).toHaveLength(2);
    expect(takenLetters(new Problem({ type: '/problems/conflict', title: 'Conflict', status: 409 }))).toEqual([]);
  });
});

it('reads a redrive again for as long as it changes', () => {
  expect(redriveRefresh({ state: 'running', sent: 0 })).toBe(1000);
  expect(redriveRefresh({ state: 'cancelled', sent: 1 })).toBe(2000);
  expect(redriveRefresh({ state: 'done', sent: 0 })).toBe(false);
});
