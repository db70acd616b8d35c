import { Icon } from '../components/icons.tsx';
import { Modal } from '../components/modal.tsx';
import './account-dialog.css';
import { signOut, type Account } from './session.ts';

/** Who is signed in, and what they may do and may not. */
export default function AccountDialog({ account, close }: { account: Account; close: () => void }) {
  const customer = account.customerId !== undefined;
  return (
    <Modal title={account.name} close={close}>
      <ul className="may">
        <May yes={customer} text="Order, and see and cancel your own orders" otherwise="Needs an account that is a customer's." />
        <May yes={account.stock} text="Change the catalog and the stock" otherwise="Needs the scope stock." />
        <May yes={account.operations} text="See everybody's orders, and run the shop" otherwise="Needs the scope operations." />
      </ul>
      <div className="dialog-foot">
        <button type="button" className="button quiet" onClick={() => void signOut()}>
          Sign out
        </button>
      </div>
    </Modal>
  );
}

function May({ yes, text, otherwise }: { yes: boolean; text: string; otherwise: string }) {
  return (
    <li className={yes ? 'yes' : 'no'}>
      <Icon name={yes ? 'check' : 'cross'} />
      <span>
        <span className="visually-hidden">{yes ? 'You may: ' : 'You may not: '}</span>
        {text}
        {!yes && <span className="small soft why-not">{otherwise}</span>}
      </span>
    </li>
  );
}
