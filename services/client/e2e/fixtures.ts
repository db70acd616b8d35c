import { test as base, expect, type APIRequestContext, type Locator, type Page } from '@playwright/test';
import type { components } from '../src/api/schema.ts';

type Product = components['schemas']['Product'];

export { expect, type Page };

interface Fixtures {
  /** The API behind the pages, to set the scene and to see what became of it. */
  api: Api;
  /** What the browser may complain about in this test. */
  tolerated: RegExp[];
}

/** Every test fails when its pages throw, or break the content security policy. */
export const test = base.extend<Fixtures>({
  tolerated: [[], { option: true }],

  api: async ({ request }, use, info) => {
    await use(new Api(request, `${info.testId.slice(-4)}${info.retry}${Date.now().toString(36).slice(-4)}`));
  },

  context: async ({ context, tolerated }, use) => {
    const complaints: string[] = [];
    context.on('weberror', (error) => complaints.push(`thrown: ${error.error().stack ?? error.error().message}`));
    context.on('console', (message) => {
      if (message.type() !== 'error' && message.type() !== 'warning') return;
      if (!tolerated.some((pattern) => pattern.test(message.text()))) complaints.push(`${message.type()}: ${message.text()}`);
    });
    await use(context);
    expect(complaints, 'what the browser complained about').toEqual([]);
  },
});

/** What the browser says of answers that are not a success and of connections that fail. */
export const failedLoads = /Failed to load resource/;

export class Api {
  readonly #request: APIRequestContext;
  readonly mark: string;

  constructor(request: APIRequestContext, mark: string) {
    this.#request = request;
    this.mark = mark;
  }

  /** Adds a product that no other test knows. */
  async add(name: string, stock: number, priceCents = 1000): Promise<Product> {
    const response = await this.#request.post('/products', { data: { name: `${name} ${this.mark}`, priceCents, stock } });
    expect(response.status()).toBe(201);
    return (await response.json()) as Product;
  }

  async product(productId: string): Promise<Product> {
    const response = await this.#request.get(`/products/${productId}`);
    expect(response.status()).toBe(200);
    return (await response.json()) as Product;
  }

  async change(product: Product, data: { name: string; priceCents: number }): Promise<void> {
    const response = await this.#request.put(`/products/${product.productId}`, { data });
    expect(response.status()).toBe(200);
  }

  async remove(product: Product): Promise<void> {
    expect((await this.#request.delete(`/products/${product.productId}`)).status()).toBe(204);
  }

  /** Adds a customer with a profile. */
  async customer(name: string): Promise<string> {
    const response = await this.#request.post('/customers', { data: { name, email: `${this.mark}@example.com` } });
    expect(response.status()).toBe(201);
    return ((await response.json()) as components['schemas']['Customer']).customerId;
  }

  async order(customerId: string, ...items: { productId: string; quantity: number }[]): Promise<components['schemas']['Order']> {
    const response = await this.#request.post('/orders', { data: { customerId, items }, headers: { Prefer: 'wait=20' } });
    expect(response.status()).toBe(201);
    return (await response.json()) as components['schemas']['Order'];
  }

  /** Places an order without waiting for what becomes of it, and returns its id. */
  async place(customerId: string, ...items: { productId: string; quantity: number }[]): Promise<string> {
    const response = await this.#request.post('/orders', { data: { customerId, items }, headers: { Prefer: 'respond-async' } });
    expect(response.status()).toBe(202);
    return ((await response.json()) as components['schemas']['Order']).orderId;
  }

  async readOrder(orderId: string): Promise<components['schemas']['Order']> {
    const response = await this.#request.get(`/orders/${orderId}`);
    expect(response.status()).toBe(200);
    return (await response.json()) as components['schemas']['Order'];
  }

  async cancel(orderId: string): Promise<void> {
    expect((await this.#request.post(`/orders/${orderId}/cancel`)).status()).toBe(200);
  }

  async orders(customerId: string): Promise<components['schemas']['Order'][]> {
    const response = await this.#request.get(`/orders?customerId=${customerId}`);
    return ((await response.json()) as { orders: components['schemas']['Order'][] }).orders;
  }
}

/** Opens the shop with nothing but this test's products in view. */
export async function openShop(page: Page, api: Api): Promise<void> {
  await page.goto(`/?q=${api.mark}`);
}

export function card(page: Page, product: Product): Locator {
  return page.getByRole('listitem').filter({ has: page.getByRole('heading', { name: product.name }) });
}

/** Puts products into the basket from the shop and opens the basket. */
export async function fill(page: Page, api: Api, ...products: Product[]): Promise<void> {
  await openShop(page, api);
  for (const product of products) await page.getByRole('button', { name: `Add to basket: ${product.name}` }).click();
  await page.getByRole('link', { name: /^Basket/ }).click();
  await expect(heading(page, 'Basket')).toBeVisible();
}

export function heading(page: Page, name: string): Locator {
  return page.getByRole('heading', { name, exact: true });
}

/** The state that the order's page shows. */
export function state(page: Page): Locator {
  return page.getByRole('region', { name: 'State of the order' });
}

export async function shopperOf(page: Page): Promise<string> {
  return page.evaluate(() => (JSON.parse(localStorage.getItem('orderflow.shopper') ?? '{}') as { customerId: string }).customerId);
}
