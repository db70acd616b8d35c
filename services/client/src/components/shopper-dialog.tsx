import { useInfiniteQuery, useMutation, useQueryClient } from '@tanstack/react-query';
import { useState } from 'react';
import { Form } from 'react-aria-components';
import { announce } from '../announce.ts';
import { addCustomer, customerKey, customers, customersKey } from '../api/customers.ts';
import { explain, Problem } from '../api/problem.ts';
import { initials } from '../format.ts';
import { becomeGuest, becomeShopper, useShopper } from '../shopper.ts';
import { Notice } from './feedback.tsx';
import { Icon } from './icons.tsx';
import { Modal } from './modal.tsx';
import './shopper-dialog.css';
import { TextInput } from './text-input.tsx';

/** Chooses who is ordering: a customer with a profile, a new one, or a guest. */
export default function ShopperDialog({ close }: { close: () => void }) {
  const shopper = useShopper();
  const known = useInfiniteQuery(customers());
  const choose = (customerId: string, name: string) => {
    becomeShopper(customerId);
    announce(`Ordering as ${name}`);
    close();
  };
  const chooseGuest = () => {
    if (!shopper.guest) becomeGuest();
    announce('Ordering as guest');
    close();
  };
  return (
    <Modal title="Who is ordering?" close={close}>
      <ul className="people">
        <li>
          <Person
            name="Guest"
            note={shopper.guest ? 'With an id of your own in this browser' : 'Begin with an empty history'}
            current={shopper.guest}
            onChoose={chooseGuest}
          />
        </li>
        {known.data?.map(({ customerId, name, email }) => (
          <li key={customerId}>
            <Person
              name={name}
              note={email}
              current={customerId === shopper.customerId}
              onChoose={() => {
                choose(customerId, name);
              }}
            />
          </li>
        ))}
        {known.hasNextPage && (
          <li>
            <button type="button" className="button plain compact wide" onClick={() => void known.fetchNextPage()}>
              Show more
            </button>
          </li>
        )}
      </ul>
      {known.isError && <Notice kind="wait">{explain(known.error).text}</Notice>}
      <NewPerson guestId={shopper.guest ? shopper.customerId : undefined} choose={choose} />
    </Modal>
  );
}

function Person({ name, note, current, onChoose }: { name: string; note: string; current: boolean; onChoose: () => void }) {
  return (
    <button type="button" className="person" aria-pressed={current} onClick={onChoose}>
      <span className="avatar" aria-hidden="true">
        {name === 'Guest' ? <Icon name="person" /> : initials(name)}
      </span>
      <span className="person-text">
        <span className="person-name">{name}</span>
        <span className="small soft">{note}</span>
      </span>
      {current && <Icon name="check" />}
    </button>
  );
}

/** Gives the guest a name, with the orders so far, or adds somebody else. */
function NewPerson({ guestId, choose }: { guestId: string | undefined; choose: (customerId: string, name: string) => void }) {
  const client = useQueryClient();
  const [name, setName] = useState('');
  const [email, setEmail] = useState('');
  const adding = useMutation({
    mutationFn: () => addCustomer({ name: name.trim(), email: email.trim(), ...(guestId !== undefined && { customerId: guestId }) }),
    onSuccess: (added) => {
      client.setQueryData(customerKey(added.customerId), added);
      void client.invalidateQueries({ queryKey: customersKey });
      choose(added.customerId, added.name);
    },
  });
  const fields = adding.error instanceof Problem ? adding.error.fields : {};
  return (
    <Form
      className="new-person"
      validationErrors={fields}
      onSubmit={(event) => {
        event.preventDefault();
        adding.mutate();
      }}
    >
      <h3>{guestId === undefined ? 'Someone new' : 'Put your name on your orders'}</h3>
      <div className="field-row">
        <TextInput label="Name" name="name" isRequired maxLength={200} autoComplete="name" value={name} onChange={setName} />
        <TextInput label="Email" name="email" type="email" isRequired maxLength={254} autoComplete="email" value={email} onChange={setEmail} />
      </div>
      {adding.error && Object.keys(fields).length === 0 && (
        <div role="alert">
          <Notice kind="bad">{explain(adding.error).text}</Notice>
        </div>
      )}
      <div className="dialog-foot">
        <button type="submit" className="button" disabled={adding.isPending}>
          Save and use
        </button>
      </div>
    </Form>
  );
}
