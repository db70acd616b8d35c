import { randomUUID } from 'node:crypto';
import { card, expect, failedLoads, fill, heading, openShop, shopperOf, test } from './fixtures.ts';

test('every page survives a reload', async ({ page, api }) => {
  const cup = await api.add('Espresso cup', 20);
  const ada = await api.customer('Ada Lovelace');
  const order = await api.order(ada, { productId: cup.productId, quantity: 1 });
  await fill(page, api, cup);
  for (const [path, title] of [
    [`/?q=${api.mark}`, 'Shop'],
    ['/basket', 'Basket'],
    [`/order/${order.orderId}`, `Order ${order.orderId.slice(-8).toUpperCase()}`],
    ['/history', 'Your orders'],
    [`/history/${ada}`, 'Orders of Ada Lovelace'],
    [`/stock?q=${api.mark}`, 'Stock'],
  ] as const) {
    await page.goto(path);
    for (const visit of ['first', 'reload']) {
      const response = visit === 'reload' ? await page.reload() : null;
      if (response) expect(response.status()).toBe(200);
      await expect(page.getByRole('heading', { level: 1 })).toHaveText(title);
      await expect(page.getByRole('alert')).toHaveCount(0);
      expect(new URL(page.url()).pathname + new URL(page.url()).search).toBe(path);
    }
  }
  await page.goto('/basket');
  await expect(page.getByRole('spinbutton', { name: cup.name })).toHaveValue('1');
});

test('a first visit loads at most 120 kB', async ({ page, context }) => {
  const session = await context.newCDPSession(page);
  await session.send('Network.enable');
  const urls = new Map<string, string>();
  let total = 0;
  session.on('Network.responseReceived', ({ requestId, response }) => urls.set(requestId, new URL(response.url).pathname));
  session.on('Network.loadingFinished', ({ requestId, encodedDataLength }) => {
    if (!/^\/(products|orders|customers)/.test(urls.get(requestId) ?? '')) total += encodedDataLength;
  });
  await page.goto('/', { waitUntil: 'networkidle' });
  await expect(heading(page, 'Shop')).toBeVisible();
  expect(total).toBeGreaterThan(50_000);
  expect(total).toBeLessThanOrEqual(120_000);
});

test('the basket is the same in all tabs', async ({ page, context, api }) => {
  const cup = await api.add('Espresso cup', 20);
  const other = await context.newPage();
  await openShop(other, api);
  await openShop(page, api);
  await page.getByRole('button', { name: `Add to basket: ${cup.name}` }).click();
  await expect(other.getByRole('link', { name: 'Basket, 1 item' })).toBeVisible();
  await other.getByRole('button', { name: `One less: ${cup.name}` }).click();
  await expect(page.getByRole('link', { name: 'Basket', exact: true })).toBeVisible();
});

test('a guest who gives a name keeps the orders', async ({ page, api }) => {
  const cup = await api.add('Espresso cup', 20);
  await fill(page, api, cup);
  await page.getByRole('button', { name: 'Place order' }).click();
  await expect(heading(page, 'Confirmed')).toBeVisible();
  const guest = await shopperOf(page);

  await page.getByRole('button', { name: 'Ordering as Guest' }).click();
  const dialog = page.getByRole('dialog', { name: 'Who is ordering?' });
  await dialog.getByRole('textbox', { name: 'Name' }).fill('Ada Lovelace');
  await dialog.getByRole('textbox', { name: 'Email' }).fill(`ada.${api.mark}@example.com`);
  await dialog.getByRole('button', { name: 'Save and use' }).click();
  await expect(page.getByRole('button', { name: 'Ordering as Ada Lovelace' })).toBeVisible();
  expect(await shopperOf(page)).toBe(guest);
  await page.goto('/history');
  await expect(page.getByText('Ordered as Ada Lovelace')).toBeVisible();
  await expect(page.getByRole('link', { name: cup.name })).toBeVisible();
});

test('the keyboard is enough to order and to cancel', async ({ page, api }) => {
  const cup = await api.add('Espresso cup', 20);
  await openShop(page, api);
  await expect(card(page, cup)).toBeVisible();
  await page.keyboard.press('Tab');
  await expect(page.getByRole('link', { name: 'Skip to content' })).toBeFocused();
  await page.keyboard.press('Enter');
  await page.keyboard.press('Tab'); // the search
  await page.keyboard.press('Tab');
  await expect(page.getByRole('button', { name: `Add to basket: ${cup.name}` })).toBeFocused();
  await page.keyboard.press('Enter');
  await expect(page.getByRole('button', { name: `One more: ${cup.name}` })).toBeFocused();
  await page.keyboard.press('Shift+Tab');
  await page.keyboard.press('Enter');
  await expect(page.getByRole('button', { name: `Add to basket: ${cup.name}` })).toBeFocused(); // not lost with its button
  await page.keyboard.press('Enter');

  await page.getByRole('link', { name: /^Basket/ }).focus();
  await page.keyboard.press('Enter');
  await expect(heading(page, 'Basket')).toBeFocused(); // a screen reader begins to read here
  await page.getByRole('button', { name: 'Place order' }).focus();
  await page.keyboard.press('Enter');
  await expect(heading(page, 'Confirmed')).toBeVisible();

  const cancel = page.getByRole('button', { name: 'Cancel order' });
  await cancel.focus();
  await page.keyboard.press('Enter');
  const dialog = page.getByRole('dialog');
  await expect(dialog).toBeVisible();
  for (let i = 0; i < 8; i++) {
    await page.keyboard.press('Tab');
    expect(await dialog.evaluate((element) => element.contains(document.activeElement))).toBe(true);
  }
  await page.keyboard.press('Escape');
  await expect(dialog).toBeHidden();
  await expect(cancel).toBeFocused();
});

test('the theme is kept', async ({ page }) => {
  await page.emulateMedia({ colorScheme: 'light' });
  await page.goto('/');
  const paper = () => page.evaluate(() => getComputedStyle(document.body).backgroundColor);
  const light = await paper();
  await page.getByRole('button', { name: /^Theme: system/ }).click();
  await page.getByRole('button', { name: /^Theme: light/ }).click();
  await expect.poll(paper).not.toBe(light);
  await page.reload();
  expect(await paper()).not.toBe(light);
  await page.getByRole('button', { name: /^Theme: dark/ }).click();
  await expect.poll(paper).toBe(light);
});

test.describe('when something is missing', () => {
  test.use({ tolerated: [failedLoads] });

  test('an address that leads nowhere', async ({ page }) => {
    expect((await page.goto('/nowhere'))?.status()).toBe(404);
    await expect(heading(page, 'There is nothing at this address')).toBeVisible();
    await page.getByRole('link', { name: 'To the shop' }).click();
    await expect(heading(page, 'Shop')).toBeVisible();
  });

  test('an order that does not exist', async ({ page }) => {
    for (const id of ['0198e1b2-7c3d-7a10-9f00-3c5f1d2b4a60', 'no-id']) {
      await page.goto(`/order/${id}`);
      await expect(heading(page, 'There is no such order')).toBeVisible();
    }
  });

  test('a customer who is known only from orders', async ({ page, api }) => {
    const cup = await api.add('Espresso cup', 20);
    const somebody = randomUUID();
    await api.order(somebody, { productId: cup.productId, quantity: 1 });
    await page.goto(`/history/${somebody}`);
    await expect(page.getByRole('heading', { level: 1 })).toHaveText(`Orders of customer ${somebody.slice(-8).toUpperCase()}`);
    await expect(page.getByRole('link', { name: cup.name })).toContainText('Confirmed');
  });

  test('a product that is not sold any more', async ({ page, api }) => {
    const cup = await api.add('Espresso cup', 20);
    await fill(page, api, cup);
    await api.remove(cup);
    await expect(page.getByText('This product was taken out of the catalog')).toBeVisible();
    await expect(page.getByRole('button', { name: 'Place order' })).toHaveAttribute('aria-disabled', 'true');
    await page.getByRole('button', { name: 'Take out No longer sold' }).click();
    await expect(heading(page, 'Your basket is empty')).toBeVisible();
  });

  test('a shop that is down comes back by itself', async ({ page, context }) => {
    const down = (status: number) => ({
      status,
      contentType: 'application/problem+json',
      headers: { 'Retry-After': '1' },
      body: JSON.stringify({ type: '/problems/unavailable', title: 'Temporarily unavailable', status }),
    });
    await context.route('**/products?**', (route) => route.fulfill(down(503)));
    await page.goto('/');
    await expect(heading(page, 'Back in a moment')).toBeVisible();
    await context.unroute('**/products?**');
    await expect(page.getByText('Stock is live')).toBeVisible();
    await expect(page.getByRole('alert')).toHaveCount(0);

    await context.route('**/products?**', (route) => route.fulfill(down(503)));
    await expect(page.getByText('This may be out of date')).toBeVisible();
    await context.unroute('**/products?**');
    await expect(page.getByText('This may be out of date')).toBeHidden();
  });

  test('the network goes and comes', async ({ page, context, api }) => {
    const cup = await api.add('Espresso cup', 20);
    await openShop(page, api);
    await expect(card(page, cup)).toBeVisible();
    await context.setOffline(true);
    await expect(page.getByText('You are offline. What you see is the last that was known.')).toBeVisible();
    await expect(page.getByText('Stock is not live right now')).toBeVisible();
    await page.getByRole('button', { name: `Add to basket: ${cup.name}` }).click();
    await context.setOffline(false);
    await expect(page.getByText('Stock is live')).toBeVisible();
    await expect(page.getByRole('link', { name: 'Basket, 1 item' })).toBeVisible();
  });
});
