import { writeFile } from 'node:fs/promises';
import type { APIRequestContext } from '@playwright/test';
import { database, die, test } from './fault.ts';
import { expect, failedLoads, heading, state, type Page } from './fixtures.ts';
import type { components } from '../src/api/schema.ts';

// Takes pictures of the system that hack/up runs, best a new one: those in the README, or into the folder that PICTURES
// names those of every page and state.
const folder = process.env['PICTURES'] ?? '';
const readme = ['shop-light', 'shop-dark', 'order-confirmed-light', 'order-confirmed-dark', 'order-short-light', 'order-short-dark', 'redrive-stopped-light', 'redrive-stopped-dark', 'trace'];

test.use({ tolerated: [failedLoads] });
test.setTimeout(90_000);

const looks = {
  light: { contextOptions: { reducedMotion: 'reduce' } },
  dark: { contextOptions: { reducedMotion: 'reduce' }, colorScheme: 'dark' },
  phone: { contextOptions: { reducedMotion: 'reduce' }, viewport: { width: 412, height: 839 }, isMobile: true, hasTouch: true },
} as const;

/** Finds a product of hack/up's catalog, with at least so many in stock. */
async function stocked(request: APIRequestContext, name: string, atLeast: number) {
  const { products } = (await (await request.get('/products?limit=200')).json()) as { products: components['schemas']['Product'][] };
  const product = products.find((other) => other.name.startsWith(name));
  if (product === undefined) throw new Error(`hack/up has not filled the catalog: there is no ${name}`);
  if (product.stock < atLeast) await request.post(`/products/${product.productId}/restock`, { data: { quantity: atLeast - product.stock } });
  return product;
}

async function take(page: Page, name: string): Promise<void> {
  if (folder === '' && !readme.includes(name)) return;
  await page.mouse.move(0, 0);
  await page.evaluate(() => document.fonts.ready);
  const session = await page.context().newCDPSession(page);
  const { data } = await session.send('Page.captureScreenshot', { format: 'webp', quality: 82 });
  await session.detach();
  await writeFile(`${folder === '' ? '../../docs/pictures' : folder}/${name}.webp`, Buffer.from(data, 'base64'));
}

async function fillBasket(page: Page): Promise<void> {
  await stocked(page.request, 'Keycap set', 3); // earlier pictures may have sold them
  await page.goto('/');
  await page.evaluate(() => {
    localStorage.removeItem('orderflow.basket');
  });
  await page.reload();
  for (const name of ['Keycap set', 'Mechanical keyboard', 'Desk lamp']) {
    await page.getByRole('button', { name: new RegExp(`^Add to basket: ${name}`) }).click();
  }
  await page.getByRole('link', { name: /^Basket/ }).click();
  await expect(heading(page, 'Basket')).toBeVisible();
}

for (const [look, options] of Object.entries(looks)) {
  test.describe(look, () => {
    test.use(options);

    test('shop and basket', async ({ page, context }) => {
      await page.goto('/basket');
      await expect(heading(page, 'Your basket is empty')).toBeVisible();
      await take(page, `basket-empty-${look}`);
      let release = (): void => undefined;
      const held = new Promise<void>((resolve) => (release = resolve));
      await context.route('**/products?**', async (route) => {
        await held;
        await route.continue();
      });
      await page.goto('/');
      await take(page, `shop-loading-${look}`);
      release();
      await page.getByRole('button', { name: /^Add to basket: Mechanical keyboard/ }).click();
      await expect(page.getByText('Stock is live')).toBeVisible();
      await take(page, `shop-${look}`);
      await page.getByRole('searchbox').fill('lamps and shades');
      await expect(page.getByText('No product matches')).toBeVisible();
      await take(page, `shop-none-${look}`);
      await page.getByRole('searchbox').fill('');
      await context.setOffline(true);
      await expect(page.getByText('You are offline')).toBeVisible();
      await take(page, `shop-offline-${look}`);
      await context.setOffline(false);
      await context.route('**/products?**', (route) => route.abort());
      await page.goto('/');
      await expect(heading(page, 'The shop cannot be reached')).toBeVisible();
      await take(page, `shop-down-${look}`);
      await context.unroute('**/products?**');
      await fillBasket(page);
      await take(page, `basket-${look}`);
      await page.getByRole('spinbutton', { name: /Keycap set/ }).fill('10');
      await expect(page.getByText('There are only')).toBeVisible();
      await take(page, `basket-short-${look}`);
      await page.getByRole('button', { name: 'Ordering as Guest' }).click();
      await expect(page.getByRole('dialog')).toBeVisible();
      await take(page, `shopper-${look}`);
    });

    test('orders', async ({ page, context }) => {
      await page.goto('/history');
      await expect(heading(page, 'No orders yet')).toBeVisible();
      await take(page, `history-empty-${look}`);

      await fillBasket(page);
      const held: (() => Promise<void>)[] = [];
      await context.route('**/orders/*/events', (route) => {
        held.push(() => route.continue());
      });
      await page.getByRole('button', { name: 'Place order' }).click();
      await expect(heading(page, 'Reserving stock')).toBeVisible();
      await take(page, `order-pending-${look}`);
      await Promise.all(held.map((release) => release()));
      await context.unroute('**/orders/*/events');
      await expect(state(page)).toContainText('Confirmed');
      await expect(page.getByText('Processed by customers')).toHaveCount(2);
      await take(page, `order-confirmed-${look}`);
      await page.getByRole('button', { name: 'Cancel order' }).click();
      await expect(page.getByRole('dialog')).toBeVisible();
      await take(page, `order-cancel-${look}`);
      await page.getByRole('dialog').getByRole('button', { name: 'Cancel order' }).click();
      await expect(heading(page, 'Cancelled')).toBeVisible();
      await expect(heading(page, 'Stock given back')).toBeVisible();
      await take(page, `order-cancelled-${look}`);

      await fillBasket(page);
      await page.getByRole('spinbutton', { name: /Keycap set/ }).fill('10');
      await page.getByRole('button', { name: 'Place order' }).click();
      await expect(heading(page, 'Not enough stock')).toBeVisible();
      await expect(page.getByText('changed nothing')).toBeVisible();
      await take(page, `order-short-${look}`);
      await page.getByRole('link', { name: 'Orders', exact: true }).click();
      await expect(page.getByRole('link', { name: /Keycap set/ })).toHaveCount(2);
      await take(page, `history-${look}`);

      await page.goto('/order/0198e1b2-7c3d-7a10-9f00-3c5f1d2b4a60');
      await expect(heading(page, 'There is no such order')).toBeVisible();
      await take(page, `order-none-${look}`);
      await page.goto('/nowhere');
      await expect(heading(page, 'There is nothing at this address')).toBeVisible();
      await take(page, `nowhere-${look}`);
    });

    test('stock', async ({ page, request }) => {
      await page.goto('/stock');
      await expect(page.getByRole('button', { name: 'Edit Webcam, 4K' })).toBeVisible();
      await take(page, `stock-${look}`);
      for (const [name, opener] of Object.entries({ 'stock-add': 'Add a product', 'stock-restock': 'Restock Webcam, 4K', 'stock-edit': 'Edit Webcam, 4K' })) {
        await page.getByRole('button', { name: opener }).click();
        const dialog = page.getByRole('dialog');
        await expect(dialog).toBeVisible();
        await take(page, `${name}-${look}`);
        if (name === 'stock-add') {
          await dialog.getByRole('button', { name: 'Add product' }).click();
          await take(page, `stock-add-wrong-${look}`);
        }
        await page.keyboard.press('Escape');
        await expect(dialog).toBeHidden();
      }

      const webcam = await stocked(request, 'Webcam, 4K', 1);
      const put = (priceCents: number) => request.put(`/products/${webcam.productId}`, { data: { name: webcam.name, priceCents } });
      const dialog = page.getByRole('dialog');
      await page.getByRole('button', { name: 'Edit Webcam, 4K' }).click();
      await dialog.getByRole('textbox', { name: 'Price' }).fill('129');
      await put(13_900);
      await dialog.getByRole('button', { name: 'Save' }).click();
      await expect(dialog.getByRole('alert')).toBeVisible();
      await take(page, `stock-conflict-${look}`);
      await put(webcam.priceCents);
    });
  });
}

for (const [look, options] of Object.entries(looks)) {
  test.describe(`dead letters, ${look}`, () => {
    test.use(options);
    test.skip(database === undefined, 'ORDERS_DATABASE_URL is not set');

    test('operations', async ({ page, api, fault, customerId }) => {
      const { productId } = await die(api, fault, customerId, 9);
      await page.goto('/operations');
      await expect(page.getByText('does not fit the order').first()).toBeVisible();
      await take(page, `causes-${look}`);
      await page.goto(`/operations/letters?state=waiting&text=${productId}`);
      await expect(page.getByRole('list', { name: 'Letters' }).getByRole('listitem')).toHaveCount(9);
      await take(page, `letters-${look}`);
      await page.getByRole('link', { name: /does not fit/ }).first().click();
      await expect(heading(page, 'Waiting')).toBeVisible();
      await take(page, `letter-${look}`);
      const post = async (path: string, data: object) => (await (await page.request.post(`/deadletters/redrives${path}`, { data })).json()) as { redriveId: string };
      const { redriveId } = await post('', { selection: { text: productId }, why: 'Orders reads quantities again' });
      await page.goto(`/operations/redrives/${redriveId}`);
      await expect(heading(page, 'Plan for 9 letters')).toBeVisible();
      await take(page, `plan-${look}`);
      await post(`/${redriveId}/start`, {});
      await expect(heading(page, 'Stopped by itself')).toBeVisible();
      await take(page, `redrive-stopped-${look}`);
      await fault.end();
      await post(`/${redriveId}/resume`, { why: 'Repaired for good' });
      await expect(heading(page, 'Done')).toBeVisible();
      await expect(page.getByRole('list', { name: 'Letters of the redrive' }).getByText('Handled')).toHaveCount(8);
      await take(page, `redrive-${look}`);
    });
  });
}

test.describe('Jaeger', () => {
  // Only light: Jaeger 2.13 mixes light and dark. The height is that of an order's ten spans.
  test.use({ ...looks.light, viewport: { width: 1280, height: 544 } });

  test('trace', async ({ page, context, request }) => {
    const { jaegerUrl } = (await (await request.get('/config.json')).json()) as { jaegerUrl: string };
    // Built from its Go module, Jaeger has a placeholder in the place of its pages.
    const shown = jaegerUrl !== '' && (await (await request.get(jaegerUrl)).text()).includes('<title>Jaeger UI</title>');
    if (!shown) console.warn('No picture of a trace: the shop leads to no Jaeger that has pages.');
    test.skip(!shown);

    await fillBasket(page);
    await page.getByRole('button', { name: 'Place order' }).click();
    await expect(page.getByText('Processed by customers')).toHaveCount(2);
    const link = page.getByRole('link', { name: 'Open the trace in Jaeger' });
    const trace = ((await link.getAttribute('href')) ?? '').replace('/trace/', '/api/traces/');
    await expect
      .poll(async () => ((await (await request.get(trace)).json()) as { data: { spans: unknown[] }[] | null }).data?.[0]?.spans.length)
      .toBe(10);
    const opened = context.waitForEvent('page');
    await link.click();
    const jaeger = await opened;
    await jaeger.waitForURL(/\/trace\//);
    await jaeger.evaluate(() => {
      localStorage.setItem('spanNameColumnWidth', '0.56'); // wide enough for what the spans are called
    });
    await jaeger.reload();
    await expect(jaeger.locator('.endpoint-name')).toHaveCount(10);
    await take(jaeger, 'trace');
  });
});
