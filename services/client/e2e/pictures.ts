import { expect, heading, state, test, type Page } from './fixtures.ts';

// Takes the pictures for the documentation, of the catalog that hack/up fills:
// PICTURES=folder npm run pictures.
const folder = process.env['PICTURES'] ?? '.';

test.use({ tolerated: [/412/] });

async function take(page: Page, name: string): Promise<void> {
  await page.mouse.move(0, 0);
  await page.evaluate(() => document.fonts.ready);
  await page.screenshot({ path: `${folder}/${name}.png` });
}

async function order(page: Page, quantity: number): Promise<void> {
  await page.goto('/');
  await page.getByRole('button', { name: /^Add to basket: Keycap set/ }).click();
  await page.getByRole('button', { name: /^Add to basket: Mechanical keyboard/ }).click();
  await page.getByRole('link', { name: /^Basket/ }).click();
  await page.getByRole('spinbutton', { name: /Keycap set/ }).fill(String(quantity));
  await page.getByRole('button', { name: 'Place order' }).click();
}

test('shop', async ({ page }) => {
  await page.goto('/');
  await page.getByRole('button', { name: /^Add to basket: Mechanical keyboard/ }).click();
  await take(page, 'shop');
  await page.emulateMedia({ colorScheme: 'dark' });
  await take(page, 'shop-dark');
});

test('orders', async ({ page }) => {
  await order(page, 1);
  await expect(state(page)).toContainText('Confirmed');
  await expect(page.getByText('Processed by customers')).toHaveCount(2);
  await take(page, 'order-confirmed');
  await page.getByRole('button', { name: 'Cancel order' }).click();
  await page.getByRole('dialog').getByRole('button', { name: 'Cancel order' }).click();
  await expect(heading(page, 'Cancelled')).toBeVisible();

  await order(page, 10);
  await expect(heading(page, 'Not enough stock')).toBeVisible();
  await expect(page.getByText('changed nothing')).toBeVisible();
  await take(page, 'order-cancelled');
  await page.getByRole('link', { name: 'Orders', exact: true }).click();
  await expect(page.getByRole('link', { name: /Keycap set/ })).toHaveCount(2);
  await take(page, 'history');
});

test('stock', async ({ page, context }) => {
  const edit = async (tab: Page, price: string) => {
    const dialog = tab.getByRole('dialog');
    await tab.goto('/stock');
    await tab.getByRole('button', { name: 'Edit Webcam, 4K' }).click();
    await dialog.getByRole('textbox', { name: 'Price' }).fill(price);
    return dialog.getByRole('button', { name: 'Save' });
  };
  const save = await edit(page, '129');
  const other = await context.newPage();
  await (await edit(other, '139')).click();
  await expect(other.getByRole('dialog')).toBeHidden();
  await save.click();
  await expect(page.getByRole('alert')).toBeVisible();
  await take(page, 'conflict');
  await page.getByRole('dialog').getByRole('textbox', { name: 'Price' }).fill('149'); // as it was
  await page.getByRole('button', { name: 'Save mine instead' }).click();
  await expect(page.getByRole('dialog')).toBeHidden();
  await take(page, 'stock');
});
