import type { OrderStatus } from '../api/orders.ts';
import { Icon } from './icons.tsx';

const looks = {
  Pending: { kind: 'wait', icon: 'clock' },
  Confirmed: { kind: 'good', icon: 'check' },
  Cancelled: { kind: 'bad', icon: 'cross' },
} as const;

export function StatusBadge({ status }: { status: OrderStatus }) {
  const { kind, icon } = looks[status];
  return (
    <span className={`badge ${kind}`}>
      <Icon name={icon} />
      {status}
    </span>
  );
}
