import AxeBuilder from '@axe-core/playwright';
import { expect, failedLoads, fill, heading, openShop, test, type Page } from './fixtures.ts';

/** Looks with axe, in light and in dark, and for what does not fit on the screen. */
async function look(page: Page): Promise<void> {
  // Behind a dialog the page with its heading is hidden from everybody, which axe only notices in some layouts.
  const behind = (await page.getByRole('dialog').count()) > 0 ? ['landmark-one-main', 'page-has-heading-one'] : [];

  // A phone has the colors of the desktop.
  const schemes = test.info().project.name === 'phone' ? (['light'] as const) : (['light', 'dark'] as const);
  for (const colorScheme of schemes) {
    await page.emulateMedia({ colorScheme, reducedMotion: 'reduce' });
    await page.evaluate(() => Promise.all(document.getAnimations().map((animation) => animation.finished.catch(() => undefined))));
    const axe = new AxeBuilder({ page }).setLegacyMode(); // there are no frames: no second page to gather their results
    if (colorScheme === 'light') axe.withTags(['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa', 'best-practice']).disableRules(behind);
    else axe.withRules(['color-contrast', 'link-in-text-block']); // only the colors are others
    const { violations, passes } = await axe.analyze();
    expect(passes.map(({ id }) => id)).toContain('color-contrast');
    const found = violations.map(({ id, help, nodes }) => `${id}: ${help}: ${nodes.map((node) => `${node.target.join(' ')} ${node.failureSummary ?? ''}`).join('; ')}`);
    expect(found, `${page.url()} in ${colorScheme}`).toEqual([]);
  }
  const overflow = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
  expect(overflow, `${page.url()} is wider than the screen by`).toBe(0);
}

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
  await context.route('**/orders/*/events', (route) => {
    held.push(() => route.continue());
  });
  await page.getByRole('button', { name: 'Place order' }).click();
  await expect(heading(page, 'Reserving stock')).toBeVisible();
  await look(page);
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
