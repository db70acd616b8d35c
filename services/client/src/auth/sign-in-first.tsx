import { Empty } from '../components/feedback.tsx';
import type { IconName } from '../components/icons.tsx';
import { signIn, useSession } from './session.ts';

/** Stands where a page would be that nobody sees without an account that may. */
export function NotForYou({ icon, what, needs }: { icon: IconName; what: string; needs: string }) {
  const session = useSession();
  if (session.kind === 'out') {
    return (
      <Empty icon={icon} title={`Sign in to ${what}`} action={<SignInButton />}>
        {needs}
      </Empty>
    );
  }
  return (
    <Empty icon={icon} title={`Your account may not ${what}`}>
      {needs}
    </Empty>
  );
}

export function SignInButton({ label = 'Sign in' }: { label?: string }) {
  return (
    <button type="button" className="button" onClick={() => void signIn()}>
      {label}
    </button>
  );
}
