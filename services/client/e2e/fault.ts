import { Client } from 'pg';
import { test as base, type Api } from './fixtures.ts';

// A handler that is broken for real: a rule in the orders' database changes what a customer's orders say they are of,
// so that no stock answer fits them. Where the database is, ORDERS_DATABASE_URL says (hack/test client has it).
export const database = process.env['ORDERS_DATABASE_URL'];

export class Fault {
  readonly #client: Client;
  readonly #name: string;
  readonly #customerId: string;

  constructor(client: Client, mark: string, customerId: string) {
    this.#client = client;
    this.#name = `broken_${mark}`;
    this.#customerId = customerId;
  }

  async begin(): Promise<void> {
    await this.#client.query(`
      create function ${this.#name}() returns trigger language plpgsql as
      $$ begin new.items = jsonb_set(new.items, '{0,quantity}', '99'); return new; end $$`);
    await this.#client.query(`
      create trigger ${this.#name} before insert on orders
      for each row when (new.customer_id = '${this.#customerId}') execute function ${this.#name}()`);
  }

  /** Orders are as they were placed, of one unit each. */
  async end(): Promise<void> {
    await this.#client.query(`drop function if exists ${this.#name} cascade`);
    await this.#client.query(`update orders set items = jsonb_set(items, '{0,quantity}', '1') where customer_id = $1`, [this.#customerId]);
  }
}

/** Tests that break a handler for one customer, and repair it at the end at the latest. */
export const test = base.extend<{ customerId: string; fault: Fault }>({
  customerId: async ({ api }, use) => {
    await use(await api.customer('Grace Hopper'));
  },
  fault: async ({ api, customerId }, use) => {
    const client = new Client({ connectionString: database });
    await client.connect();
    const fault = new Fault(client, api.mark, customerId);
    try {
      await use(fault);
    } finally {
      await fault.end();
      await client.end();
    }
  },
});

/** Has letters of orders for one product die, and returns the orders. */
export async function die(api: Api, fault: Fault, customerId: string, howMany: number): Promise<{ orders: string[]; productId: string }> {
  const { productId } = await api.add('Espresso cup', 50);
  await fault.begin();
  const orders: string[] = [];
  for (let i = 0; i < howMany; i++) orders.push(await api.place(customerId, { productId, quantity: 1 }));
  return { orders, productId };
}
