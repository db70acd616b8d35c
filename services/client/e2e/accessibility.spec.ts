import { look } from './accessibility.ts';
import { expect, failedLoads, fill, heading, openShop, test } from './fixtures.ts';

test('shop', async ({ page, api }) => {
  await api.add('Espresso cup', 20);
  await api.add('Gone lamp', 0);
  await api.add('Rare thing', 2);
  await openShop(page, api);
  await page.getByRole('button', { name: 'Add to basket: Espresso cup' }).click();
  await look(page);
  await page.getByRole('searchbox').fill('no such thing');
  await expect(page.getByText('No product matches')).toBeVisible();
  await look(page);
});

test('basket, with a warning and empty', async ({ page, api }) => {
  const cup = await api.add('Espresso cup', 2);
  await page.goto('/basket');
  await expect(heading(page, 'Your basket is empty')).toBeVisible();
  await look(page);
  await fill(page, api, cup);
  await page.getByRole('spinbutton', { name: cup.name }).fill('5');
  await expect(page.getByText('There are only 2 left')).toBeVisible();
  await look(page);
});

test('order: pending, confirmed, cancelled', async ({ page, context, api }) => {
  const cup = await api.add('Espresso cup', 5);
  await fill(page, api, cup);
  const held: (() => Promise<void>)[] = [];
  const news = /\/orders\/[^/?]+(\/events)?$/; // the stream, and the order itself for who does not wait for it
  await context.route(news, (route) => {
    held.push(() => route.continue().catch(() => undefined)); // the page may have given it up
  });
  await page.getByRole('button', { name: 'Place order' }).click();
  await expect(heading(page, 'Reserving stock')).toBeVisible();
  await look(page);
  await context.unroute(news);
  await Promise.all(held.map((release) => release()));
  await expect(heading(page, 'Confirmed')).toBeVisible();
  await expect(page.getByText('Processed by customers')).toHaveCount(2);
  await look(page);
  await page.getByRole('button', { name: 'Cancel order' }).click();
  const dialog = page.getByRole('dialog');
  await expect(dialog).toBeVisible();
  await look(page);
  await dialog.getByRole('button', { name: 'Cancel order' }).click();
  await expect(heading(page, 'Cancelled')).toBeVisible();
  await look(page);
});

test('order: not enough stock', async ({ page, api }) => {
  const cup = await api.add('Espresso cup', 3);
  const order = await api.order(await api.customer('Ada Lovelace'), { productId: cup.productId, quantity: 10 });
  await page.goto(`/order/${order.orderId}`);
  await expect(heading(page, 'Not enough stock')).toBeVisible();
  await look(page);
});

test('history, full and empty', async ({ page, api }) => {
  await page.goto('/history');
  await expect(heading(page, 'No orders yet')).toBeVisible();
  await look(page);
  const cup = await api.add('Espresso cup', 3);
  const ada = await api.customer('Ada Lovelace');
  await api.order(ada, { productId: cup.productId, quantity: 1 });
  await api.order(ada, { productId: cup.productId, quantity: 10 });
  await page.goto(`/history/${ada}`);
  await expect(page.getByText(cup.name).first()).toBeVisible();
  await look(page);
});

test('stock and its dialogs', async ({ page, api }) => {
  const cup = await api.add('Espresso cup', 3);
  await page.goto(`/stock?q=${api.mark}`);
  await expect(page.getByRole('button', { name: `Edit ${cup.name}` })).toBeVisible();
  await look(page);
  for (const opener of ['Add a product', `Restock ${cup.name}`, `Edit ${cup.name}`, 'Ordering as Guest']) {
    await page.getByRole('button', { name: opener }).click();
    await expect(page.getByRole('dialog')).toBeVisible();
    await look(page);
    await page.keyboard.press('Escape');
    await expect(page.getByRole('dialog')).toBeHidden();
  }
});

test.describe('what went wrong', () => {
  test.use({ tolerated: [failedLoads] });

  test('conflict', async ({ page, api }) => {
    const cup = await api.add('Espresso cup', 3, 2499);
    await page.goto(`/stock?q=${api.mark}`);
    await page.getByRole('button', { name: `Edit ${cup.name}` }).click();
    await page.getByRole('dialog').getByRole('textbox', { name: 'Price' }).fill('21');
    await api.change(cup, { name: cup.name, priceCents: 1999 });
    await page.getByRole('button', { name: 'Save' }).click();
    await expect(page.getByText('Someone saved this product')).toBeVisible();
    await look(page);
  });

  test('no such page, no such order, no connection', async ({ page, context }) => {
    await page.goto('/nowhere');
    await expect(heading(page, 'There is nothing at this address')).toBeVisible();
    await look(page);
    await page.goto('/order/0198e1b2-7c3d-7a10-9f00-3c5f1d2b4a60');
    await expect(heading(page, 'There is no such order')).toBeVisible();
    await look(page);
    await context.route('**/products?**', (route) => route.abort());
    await page.goto('/');
    await expect(heading(page, 'The shop cannot be reached')).toBeVisible();
    await look(page);
    await context.setOffline(true);
    await expect(heading(page, 'You are offline')).toBeVisible();
    await look(page);
  });
});
