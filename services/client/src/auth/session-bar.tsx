import { Icon } from '../components/icons.tsx';
import { signIn, useSession } from './session.ts';

/** Says on every page what is special about who is here. */
export function SessionBar() {
  const session = useSession();
  if (session.kind === 'open') {
    return (
      <p className="session-bar">
        <Icon name="unlocked" />
        This system is open: everybody may see and change everything.
      </p>
    );
  }
  return (
    <div role="status">
      {session.kind === 'out' && session.why !== undefined && (
        <p className="session-bar wait">
          <Icon name="warning" />
          <span>{reasons[session.why]}</span>
          <button type="button" onClick={() => void signIn()}>
            {session.why === 'unreachable' ? 'Try again' : 'Sign in'}
          </button>
        </p>
      )}
    </div>
  );
}

const reasons = {
  ended: 'Your session has ended. What you see is the last that was known.',
  unreachable: 'Nobody can sign in right now: the accounts cannot be reached.',
  refused: 'You were not signed in.',
} as const;
