import { card, expect, failedLoads, fill, heading, openShop, shopperOf, state, test } from './fixtures.ts';

test('order several products and see them confirmed live', async ({ page, api }) => {
  const cup = await api.add('Espresso cup', 20, 2499);
  const lamp = await api.add('Desk lamp', 5, 8900);
  await fill(page, api, cup, lamp);
  await page.getByRole('spinbutton', { name: cup.name }).fill('3');
  await expect(page.getByText('€163.97')).toHaveCount(2); // 3 × 24.99 + 89.00: items and total

  const [request] = await Promise.all([page.waitForRequest((r) => r.method() === 'POST'), page.getByRole('button', { name: 'Place order' }).click()]);
  await expect(state(page)).toContainText('Confirmed');
  await expect(state(page)).toContainText('All items are reserved at €163.97');
  expect(await page.evaluate(() => performance.getEntriesByType('navigation').length)).toBe(1);

  // The gateway begins the trace, not the page.
  expect(request.headers()['traceparent']).toBeUndefined();
  expect(request.headers()['idempotency-key']).toMatch(/^[0-9a-f-]{36}$/);

  // The journey grows to its end without a reload.
  const journey = page.getByRole('region', { name: 'Journey' });
  for (const stage of ['Order placed', 'Stock reserved', 'Order confirmed']) await expect(journey.getByRole('heading', { name: stage })).toBeVisible();
  await expect(journey.getByText('Processed by customers')).toHaveCount(2);

  await page.getByRole('link', { name: 'Orders', exact: true }).click();
  await expect(page.getByRole('link', { name: `${cup.name} and 1 more` })).toContainText('Confirmed');
  await page.getByRole('link', { name: /^Basket/ }).click();
  await expect(heading(page, 'Your basket is empty')).toBeVisible();
});

test('an order leads to the trace that its answer named', async ({ page, api }) => {
  const traceId = '4bf92f3577b34da6a3ce929d0e0e4736';
  await page.route('**/config.json', (route) => route.fulfill({ json: { jaegerUrl: 'http://jaeger.example' } }));
  await page.route('**/orders', async (route) => {
    const response = await route.fetch();
    await route.fulfill({ response, headers: { ...response.headers(), 'server-timing': `traceparent;desc="00-${traceId}-00f067aa0ba902b7-01"` } });
  });
  const cup = await api.add('Espresso cup', 20);
  await fill(page, api, cup);
  await page.getByRole('button', { name: 'Place order' }).click();
  const link = page.getByRole('link', { name: 'Open the trace in Jaeger' });
  await expect(link).toHaveAttribute('href', `http://jaeger.example/trace/${traceId}`);
  await page.reload();
  await expect(link).toHaveAttribute('href', `http://jaeger.example/trace/${traceId}`);
});

test('too much is cancelled, with what was missing', async ({ page, api }) => {
  const cup = await api.add('Espresso cup', 3);
  const lamp = await api.add('Desk lamp', 50);
  await fill(page, api, cup, lamp);
  await page.getByRole('spinbutton', { name: cup.name }).fill('10');
  await expect(page.getByText('There are only 3 left right now')).toBeVisible();
  await page.getByRole('button', { name: 'Take 3' }).click();
  await expect(page.getByRole('spinbutton', { name: cup.name })).toHaveValue('3');
  await expect(page.getByText('There are only')).toBeHidden();
  await page.getByRole('spinbutton', { name: cup.name }).fill('10');
  await page.getByRole('button', { name: 'Place order' }).click();

  await expect(heading(page, 'Not enough stock')).toBeVisible();
  await expect(state(page)).toContainText(`${cup.name}10 ordered, only 3 available`);
  await expect(state(page)).not.toContainText(lamp.name);
  expect((await api.product(lamp.productId)).stock).toBe(50);

  await page.getByRole('button', { name: 'Put what is available in the basket' }).click();
  await expect(page.getByRole('spinbutton', { name: cup.name })).toHaveValue('3');
  await page.getByRole('button', { name: 'Place order' }).click();
  await expect(heading(page, 'Confirmed')).toBeVisible();
});

test('a cancelled order gives its stock back, which the shop shows live', async ({ page, context, api }) => {
  const cup = await api.add('Espresso cup', 7);
  const other = await context.newPage();
  await openShop(other, api);
  await expect(card(other, cup)).toContainText('Only 7 left');

  await fill(page, api, cup);
  await page.getByRole('spinbutton', { name: cup.name }).fill('7');
  await page.getByRole('button', { name: 'Place order' }).click();
  await expect(heading(page, 'Confirmed')).toBeVisible();
  await expect(card(other, cup)).toContainText('Sold out');

  await page.getByRole('button', { name: 'Cancel order' }).click();
  const dialog = page.getByRole('dialog', { name: 'Cancel this order?' });
  await dialog.getByRole('button', { name: 'Keep it' }).click();
  await expect(dialog).toBeHidden();
  await page.getByRole('button', { name: 'Cancel order' }).click();
  await dialog.getByRole('button', { name: 'Cancel order' }).click();

  await expect(heading(page, 'Cancelled')).toBeVisible();
  await expect(page.getByRole('button', { name: 'Cancel order' })).toBeHidden();
  await expect(page.getByRole('region', { name: 'Journey' }).getByRole('heading', { name: 'Stock given back' })).toBeVisible();
  await expect(card(other, cup)).toContainText('Only 7 left');
});

test.describe('with a bad connection', () => {
  test.use({ tolerated: [failedLoads] });

  test('an order that is waited for is taken up again', async ({ page, context, api }) => {
    const cup = await api.add('Espresso cup', 5);
    await fill(page, api, cup);
    await context.route(/\/orders\/./, (route) => route.abort('connectionreset'));
    await page.getByRole('button', { name: 'Place order' }).click();
    await expect(heading(page, 'Reserving stock')).toBeVisible();
    await expect(state(page)).toContainText('Connection lost');

    await context.setOffline(true);
    await expect(page.getByText('You are offline')).toBeVisible();
    await expect(heading(page, 'Reserving stock')).toBeVisible();

    await context.unroute(/\/orders\/./);
    await context.setOffline(false);
    await expect(heading(page, 'Confirmed')).toBeVisible();
    await expect(page.getByText('You are offline')).toBeHidden();
  });

  test('an order is asked for where streams do not get through', async ({ page, context, api }) => {
    const cup = await api.add('Espresso cup', 5);
    await fill(page, api, cup);
    await context.route('**/orders/*/events', (route) => route.abort('connectionreset'));
    await page.getByRole('button', { name: 'Place order' }).click();
    await expect(heading(page, 'Confirmed')).toBeVisible();
  });

  test('an order is asked for while a proxy holds its stream back', async ({ page, context, api }) => {
    const cup = await api.add('Espresso cup', 5);
    await fill(page, api, cup);
    await context.route('**/orders/*/events', () => undefined); // no answer at all
    await page.getByRole('button', { name: 'Place order' }).click();
    await expect(heading(page, 'Confirmed')).toBeVisible();
  });

  test('a stream that the server ends is resumed after the last version', async ({ page, context, api }) => {
    const cup = await api.add('Espresso cup', 5);
    const seen: (string | undefined)[] = [];
    await context.route(/\/orders\/[^/]+$/, () => undefined); // only a stream tells what becomes of the order
    await context.route('**/orders/*/events', async (route) => {
      seen.push(route.request().headers()['last-event-id']);
      if (seen.length === 1) await route.fulfill({ contentType: 'text/event-stream', body: ':\n\n' });
      else await route.continue();
    });
    await fill(page, api, cup);
    await page.getByRole('button', { name: 'Place order' }).click();
    await expect(heading(page, 'Confirmed')).toBeVisible();
    expect(seen).toEqual(['1', '1']);
  });

  test('an order whose answer got lost is placed once', async ({ page, context, api }) => {
    const cup = await api.add('Espresso cup', 5);
    await fill(page, api, cup);
    const keys: (string | undefined)[] = [];
    await context.route('**/orders', async (route) => {
      keys.push(route.request().headers()['idempotency-key']);
      const response = await route.fetch();
      if (keys.length <= 2) await route.abort('connectionreset'); // the order is stored, but nobody hears
      else await route.fulfill({ response });
    });
    await page.getByRole('button', { name: 'Place order' }).click();
    await expect(heading(page, 'Confirmed')).toBeVisible();
    expect(new Set(keys).size).toBe(1);
    expect(keys).toHaveLength(3);
    expect(await api.orders(await shopperOf(page))).toHaveLength(1);
    expect((await api.product(cup.productId)).stock).toBe(4);
  });

  test('a shopper who goes elsewhere meanwhile stays there and keeps what was put in since', async ({ page, context, api }) => {
    const cup = await api.add('Espresso cup', 5);
    const lamp = await api.add('Desk lamp', 5);
    await fill(page, api, cup);
    let busy = true;
    const keys = new Set<string | undefined>();
    await context.route('**/orders', async (route) => {
      if (route.request().method() !== 'POST') return route.continue();
      keys.add(route.request().headers()['idempotency-key']);
      if (!busy) return route.continue();
      return route.fulfill({
        status: 503,
        headers: { 'Retry-After': '5' },
        contentType: 'application/problem+json',
        body: JSON.stringify({ type: '/problems/unavailable', title: 'Temporarily unavailable', status: 503 }),
      });
    });
    await page.getByRole('button', { name: 'Place order' }).click();
    await expect(page.getByRole('button', { name: 'Trying again in a moment…' })).toBeVisible();

    const basket = page.getByRole('link', { name: /^Basket/ });
    await page.getByRole('link', { name: 'Shop', exact: true }).click();
    await basket.click();
    await page.getByRole('button', { name: 'Trying again in a moment…' }).click({ force: true });
    await page.getByRole('link', { name: 'Shop', exact: true }).click();
    await page.getByRole('searchbox').fill(api.mark);
    await page.getByRole('button', { name: `Add to basket: ${lamp.name}` }).click();
    busy = false;

    await expect(basket).toHaveAccessibleName(/\b1\b/);
    await expect(heading(page, 'Basket')).toBeHidden();
    await expect(card(page, lamp)).toBeVisible();
    await basket.click();
    await expect(page.getByRole('spinbutton', { name: lamp.name })).toHaveValue('1');
    await expect(page.getByRole('spinbutton')).toHaveCount(1);
    await expect(page.getByRole('button', { name: 'Place order' })).toBeVisible();
    expect(keys.size).toBe(1);
    expect(await api.orders(await shopperOf(page))).toHaveLength(1);
  });

  test('what is put in before an uncertain order is seen is kept', async ({ page, context, api }) => {
    const cup = await api.add('Espresso cup', 5);
    const lamp = await api.add('Desk lamp', 5);
    await fill(page, api, cup);
    await context.route('**/orders', async (route) => {
      const response = await route.fetch();
      await route.fulfill({
        status: 504,
        headers: { Location: response.headers()['location'] ?? '' },
        contentType: 'application/problem+json',
        body: JSON.stringify({ type: '/problems/outcome-unknown', title: 'No answer in time', status: 504 }),
      });
    });
    await page.route(/\/orders\/[^/]+$/, (route) =>
      route.fulfill({
        status: 404,
        contentType: 'application/problem+json',
        body: JSON.stringify({ type: '/problems/not-found', title: 'Not found', status: 404 }),
      }),
    );
    await page.getByRole('button', { name: 'Place order' }).click();
    await expect(heading(page, 'It is not certain whether your order was placed')).toBeVisible();

    const other = await context.newPage();
    await openShop(other, api);
    await other.getByRole('button', { name: `Add to basket: ${lamp.name}` }).click();
    await page.unroute(/\/orders\/[^/]+$/);
    await expect(heading(page, 'Confirmed')).toBeVisible();
    await page.getByRole('link', { name: /^Basket/ }).click();
    await expect(page.getByRole('spinbutton', { name: lamp.name })).toHaveValue('1');
    await expect(page.getByRole('spinbutton')).toHaveCount(1);
    await expect(page.getByRole('alert')).toBeHidden();
  });

  test('a shop that does not answer keeps the basket and lets people try again', async ({ page, context, api }) => {
    const cup = await api.add('Espresso cup', 5);
    await fill(page, api, cup);
    await context.route('**/orders', (route) =>
      route.fulfill({
        status: 503,
        contentType: 'application/problem+json',
        body: JSON.stringify({ type: '/problems/unavailable', title: 'Temporarily unavailable', status: 503 }),
      }),
    );
    await page.getByRole('button', { name: 'Place order' }).click();
    await expect(page.getByRole('alert')).toContainText('trying again cannot place the order twice');
    await page.reload();
    await context.unroute('**/orders');
    await page.getByRole('button', { name: 'Place order' }).click();
    await expect(heading(page, 'Confirmed')).toBeVisible();
  });
});
