import { look } from './accessibility.ts';
import { database, die, test } from './fault.ts';
import { expect, heading, type Page } from './fixtures.ts';

async function plan(page: Page, why: string): Promise<void> {
  await page.getByRole('button', { name: 'Redrive…' }).click();
  const dialog = page.getByRole('dialog', { name: 'Plan a redrive' });
  await expect(dialog.getByRole('textbox', { name: 'Why' })).toBeFocused();
  await page.keyboard.type(why);
  await dialog.getByRole('button', { name: 'Make the plan' }).click();
}

async function step(page: Page, name: 'Start' | 'Resume'): Promise<void> {
  await page.getByRole('button', { name: `${name}…` }).click();
  await page.getByRole('dialog').getByRole('button', { name, exact: true }).click();
  await expect(page.getByRole('dialog')).toBeHidden();
}

test.skip(database === undefined, 'ORDERS_DATABASE_URL is not set');

test('from a broken handler to the last redriven letter', async ({ page, api, fault, customerId }) => {
  test.slow(); // many pages, each looked at
  const { orders, productId } = await die(api, fault, customerId, 4);
  await page.goto('/operations');
  await expect(page.getByRole('listitem').filter({ hasText: 'orders.stock.reserved' }).first()).toContainText('the stock answer does not fit the order');
  await look(page);

  await page.goto(`/operations/letters?state=waiting&text=${productId}`);
  const rows = page.getByRole('list', { name: 'Letters' }).getByRole('listitem');
  await expect(rows).toHaveCount(4);
  await look(page);
  await rows.first().getByRole('link', { name: /does not fit/ }).click();
  await expect(heading(page, 'Waiting')).toBeVisible();
  await expect(page.getByRole('region', { name: 'Body of the letter' })).toContainText(`"productId": "${productId}"`);
  await look(page);
  await page.goBack();

  // While the handler is broken, one letter is tried and no more.
  await expect(rows).toHaveCount(4);
  await plan(page, 'Hoping for the best');
  await expect(heading(page, 'Plan for 4 letters')).toBeVisible();
  await look(page);
  await step(page, 'Start');
  await expect(heading(page, 'Stopped by itself')).toBeVisible({ timeout: 60_000 });
  const state = page.getByRole('region', { name: 'State of the redrive' });
  await expect(state).toContainText('letter died again');
  await expect(state.getByRole('definition')).toHaveText(['0', '0', '1', '0', '0', '3']);
  await look(page);

  // Repaired, it continues with the others.
  await fault.end();
  await step(page, 'Resume');
  await expect(heading(page, 'Done')).toBeVisible({ timeout: 60_000 });
  await expect(state.getByRole('definition')).toHaveText(['3', '0', '1', '0', '0', '0']);
  await expect(page.getByText('Canary sent: 1 letter')).toHaveCount(2);
  const sent = page.getByRole('list', { name: 'Letters of the redrive' }).getByRole('listitem');
  await expect(sent.filter({ hasText: 'Handled' })).toHaveCount(3);

  // What died again takes a plan of its own.
  await page.getByRole('link', { name: 'See what died again' }).click();
  await expect(rows).toHaveCount(1);
  await page.getByRole('checkbox', { name: 'Select the 1 letter shown' }).press('Space');
  await plan(page, 'Repaired');
  await step(page, 'Start');
  await expect(heading(page, 'Done')).toBeVisible({ timeout: 60_000 });
  await look(page);
  await page.goto(`/operations/letters?state=waiting&text=${productId}`);
  await expect(heading(page, 'No letters')).toBeVisible();
  for (const orderId of orders) await expect.poll(async () => (await api.readOrder(orderId)).status, { timeout: 60_000 }).toBe('Confirmed');
});

test('what nobody needs is discarded with a reason, and noted', async ({ page, api, fault, customerId }) => {
  const { orders, productId } = await die(api, fault, customerId, 1);
  await page.goto(`/operations/letters?text=${productId}`);
  await page.getByRole('link', { name: /does not fit/ }).click();
  await page.getByRole('button', { name: 'Discard…' }).click();
  const dialog = page.getByRole('dialog');
  await dialog.getByRole('button', { name: 'Discard', exact: true }).click();
  await expect(dialog.getByRole('textbox', { name: 'Why' })).toHaveAttribute('aria-invalid', 'true');
  await look(page);
  await dialog.getByRole('textbox', { name: 'Why' }).fill('Placed by a test');
  await dialog.getByRole('button', { name: 'Discard', exact: true }).click();
  await expect(heading(page, 'Discarded')).toBeVisible();
  await expect(page.getByRole('listitem').filter({ hasText: '“Placed by a test”' })).toBeVisible();
  await page.getByRole('link', { name: 'History', exact: true }).click();
  await expect(page.getByText('“Placed by a test”').first()).toBeVisible();
  await look(page);
  await fault.end();
  for (const orderId of orders) await api.cancel(orderId);
});
