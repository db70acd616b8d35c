import { lazy, Suspense, useState } from 'react';
import { Icon } from '../components/icons.tsx';
import { initials } from '../format.ts';
import { signIn, type Account } from './session.ts';

const loadAccountDialog = () => import('./account-dialog.tsx');
const AccountDialog = lazy(loadAccountDialog);

/** The account in the page's head; a way to sign in when there is none. */
export function AccountButton({ account }: { account: Account | undefined }) {
  const [open, setOpen] = useState(false);
  if (!account) {
    return (
      <button type="button" className="shopper" onClick={() => void signIn()}>
        <span className="avatar" aria-hidden="true">
          <Icon name="person" />
        </span>
        <span className="shopper-name">Sign in</span>
      </button>
    );
  }
  return (
    <>
      <button
        type="button"
        className="shopper"
        aria-haspopup="dialog"
        title={`Signed in as ${account.name}`}
        onPointerEnter={() => void loadAccountDialog()}
        onClick={() => {
          setOpen(true);
        }}
      >
        <span className="avatar" aria-hidden="true">
          {initials(account.name)}
        </span>
        <span className="shopper-name">
          <span className="visually-hidden">Signed in as </span>
          {account.name}
        </span>
      </button>
      {open && (
        <Suspense>
          <AccountDialog
            account={account}
            close={() => {
              setOpen(false);
            }}
          />
        </Suspense>
      )}
    </>
  );
}
