import type { LetterEntry, LetterState, Redrive, RedriveOutcome, RedriveState } from '../api/deadletters.ts';
import type { IconName } from '../components/icons.tsx';
import { count, counted } from '../format.ts';

const reasons: Readonly<Record<string, string>> = {
  'malformed-envelope': 'Unreadable envelope',
  'unknown-type': 'Unknown type',
  'malformed-body': 'Unreadable body',
  'permanent-failure': 'Cannot succeed',
  'delivery-limit': 'Failed too often',
  rejected: 'Rejected',
  expired: 'Expired',
  maxlen: 'Queue was full',
};

/** Why a letter died, in words. */
export function reasonInWords(reason: string): string {
  return reasons[reason] ?? (reason === '' ? 'No reason given' : reason);
}

/** What a cause is called by: its error, or its reason where no consumer said what was wrong. */
export function causeInWords({ error, reason }: { error: string; reason: string }): string {
  return error === '' ? reasonInWords(reason) : error;
}

interface Look {
  name: string;
  kind: 'good' | 'wait' | 'bad' | 'neutral';
  icon: IconName;
}

export const letterLooks: Readonly<Record<LetterState, Look>> = {
  waiting: { name: 'Waiting', kind: 'bad', icon: 'letters' },
  redriving: { name: 'Redriving', kind: 'wait', icon: 'again' },
  handled: { name: 'Handled', kind: 'good', icon: 'check' },
  unknown: { name: 'Unknown', kind: 'wait', icon: 'clock' },
  discarded: { name: 'Discarded', kind: 'neutral', icon: 'trash' },
};

export const redriveLooks: Readonly<Record<RedriveState, Look>> = {
  draft: { name: 'Plan', kind: 'neutral', icon: 'orders' },
  running: { name: 'Running', kind: 'wait', icon: 'again' },
  paused: { name: 'Paused', kind: 'wait', icon: 'pause' },
  stopped: { name: 'Stopped', kind: 'bad', icon: 'warning' },
  done: { name: 'Done', kind: 'good', icon: 'check' },
  cancelled: { name: 'Cancelled', kind: 'neutral', icon: 'cross' },
};

/** The outcomes in the order in which a redrive's progress shows them. */
export const outcomes: readonly RedriveOutcome[] = ['handled', 'sent', 'died', 'unknown', 'skipped', 'planned'];

export const outcomeNames: Readonly<Record<RedriveOutcome, string>> = {
  handled: 'Handled',
  sent: 'On their way',
  died: 'Dead again',
  unknown: 'Unknown',
  skipped: 'Left out',
  planned: 'Not sent yet',
};

/** What a redrive has come to, in a sentence; '' for one that nothing was sent of. */
export function resultInWords(redrive: Readonly<Record<RedriveOutcome, number>>): string {
  const { handled, sent, died, unknown, skipped, planned } = redrive;
  if (handled + sent + died + unknown === 0) return '';
  const parts = [`${count(handled)} handled`];
  if (died > 0) parts.push(`${count(died)} dead again`);
  if (unknown > 0) parts.push(`${count(unknown)} unknown`);
  if (sent > 0) parts.push(`${count(sent)} on the way`);
  if (skipped > 0) parts.push(`${count(skipped)} left out`);
  if (planned > 0) parts.push(`${count(planned)} to send`);
  return parts.join(', ');
}

/** What a plan says about the orders of its letters. */
export function ordersInWords({ total, asked, final }: Redrive['orders']): string {
  if (total === 0) return 'The letters name no order.';
  if (asked === 0) return `The letters are about ${counted(total, 'order')}, of which nothing could be learned.`;
  const known = `${final === 0 ? 'None' : count(final)} of ${counted(asked, 'order')} had ended when the plan was made, Confirmed or Cancelled.`;
  return asked < total ? `${known} Of ${count(total - asked)} more nothing could be learned.` : known;
}

/** Who did it. The service writes ids of callers, not names. */
export function whoInWords(by: string): string {
  if (by === 'anyone') return 'somebody';
  if (by === 'deadletters') return 'the service';
  return by;
}

/**
 * What an entry of the history says. canary: it is the first to be sent since
 * its redrive was started or resumed.
 */
export function entryInWords({ action, letters }: Pick<LetterEntry, 'action' | 'letters'>, canary = false): string {
  const n = counted(letters, 'letter');
  switch (action) {
    case 'planned':
      return `Planned with ${n}`;
    case 'started':
      return `Started with ${n}`;
    case 'paused':
      return 'Paused';
    case 'resumed':
      return 'Resumed';
    case 'cancelled':
      return letters > 0 ? `Cancelled, ${n} not sent` : 'Cancelled';
    case 'stopped':
      return 'Stopped by itself';
    case 'done':
      return `Done: ${count(letters)} handled`;
    case 'sent':
      return canary ? `Canary sent: ${n}` : `${n} sent`;
    case 'handled':
      return `${n} handled`;
    case 'died':
      return letters === 1 ? 'Died again' : `${n} died again`;
    case 'unknown':
      return 'Nothing was heard of it';
    case 'skipped':
      return 'Left out';
    case 'discarded':
      return letters > 1 ? `${n} discarded` : 'Discarded';
    case 'noted':
      return 'Note written';
    case 'stored':
      return 'Taken from its queue';
  }
}

const begins: readonly LetterEntry['action'][] = ['started', 'resumed'];

/** Which entries of a redrive's history, newest first, sent a canary. */
export function canaries(entries: readonly Pick<LetterEntry, 'action' | 'redriveId'>[]): ReadonlySet<number> {
  const found = new Set<number>();
  const fresh = new Set<string>(); // redrives that have sent nothing since they began
  for (let i = entries.length - 1; i >= 0; i--) {
    const { action, redriveId } = entries[i] ?? { action: 'noted', redriveId: null };
    if (redriveId === null) continue;
    if (begins.includes(action)) fresh.add(redriveId);
    else if (action === 'sent' && fresh.delete(redriveId)) found.add(i);
  }
  return found;
}
