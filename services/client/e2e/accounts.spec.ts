import AxeBuilder from '@axe-core/playwright';
import { request as contexts, type Browser } from '@playwright/test';
import { Api, expect, failedLoads, heading, test as base, type Page } from './fixtures.ts';

// A system with accounts, whose access tokens end after seconds (hack/test starts one).

const secret = process.env['IDP_MACHINE_SECRET'] ?? 'only-for-development';

async function issuerOf(baseURL: string | undefined): Promise<string> {
  const response = await fetch(`${baseURL ?? ''}/auth/config`);
  return ((await response.json()) as { issuer: string }).issuer;
}

const test = base.extend<{ issuer: string }>({
  issuer: async ({ baseURL }, use) => {
    await use(await issuerOf(baseURL));
  },
  // Sets the scene as a program that may do everything.
  api: async ({ baseURL, issuer }, use, info) => {
    const token = async () => {
      const response = await fetch(`${issuer}/oauth/token`, {
        method: 'POST',
        headers: { Authorization: `Basic ${btoa(`orderflow-machine:${encodeURIComponent(secret)}`)}`, 'Content-Type': 'application/x-www-form-urlencoded' },
        body: 'grant_type=client_credentials',
      });
      return ((await response.json()) as { access_token: string }).access_token;
    };
    const context = await contexts.newContext({ ...(baseURL !== undefined && { baseURL }), extraHTTPHeaders: { Authorization: `Bearer ${await token()}` } });
    await use(new Api(context, `${info.testId.slice(-4)}${info.retry}${Date.now().toString(36).slice(-4)}`));
    await context.dispose();
  },
});

/** Signs in by the issuer's page and comes back to the page it began on. */
async function signIn(page: Page, user: string): Promise<void> {
  await page.getByRole('button', { name: 'Sign in' }).first().click();
  await page.getByLabel('Name').fill(user);
  await page.getByLabel('Password').fill(user);
  await page.getByRole('button', { name: 'Sign in', exact: true }).click();
  await expect(page.getByRole('button', { name: /^Signed in as/ })).toBeVisible();
}

/** Another person's browser. */
async function another(browser: Browser, baseURL: string | undefined): Promise<Page> {
  return (await browser.newContext({ ...(baseURL !== undefined && { baseURL }) })).newPage();
}

/** Orders a new product and returns its name. */
async function order(page: Page, api: Api): Promise<string> {
  const cup = await api.add('Espresso cup', 5);
  await page.goto(`/?q=${api.mark}`);
  await page.getByRole('button', { name: `Add to basket: ${cup.name}` }).click();
  await page.getByRole('link', { name: /^Basket/ }).click();
  await page.getByRole('button', { name: 'Place order' }).click();
  return cup.name;
}

test.describe('people', () => {
  test.use({ tolerated: [failedLoads] }); // an order that is another's

  test('see and change what is theirs and nothing else', async ({ page, api, browser, baseURL }) => {
    await page.goto('/history');
    await expect(heading(page, 'Sign in to have orders')).toBeVisible();
    await signIn(page, 'ada');
    expect(new URL(page.url()).pathname).toBe('/history');
    const cup = await order(page, api);
    await expect(heading(page, 'Confirmed')).toBeVisible();
    const link = page.url();
    await page.getByRole('link', { name: 'Orders', exact: true }).click();
    await expect(page.getByRole('link', { name: cup })).toContainText('Confirmed');

    const ben = await another(browser, baseURL);
    await ben.goto(link);
    await expect(heading(ben, 'Sign in to see this order')).toBeVisible();
    await signIn(ben, 'ben');
    expect(ben.url()).toBe(link);
    await expect(heading(ben, 'There is no such order')).toBeVisible();
    await ben.getByRole('link', { name: 'Orders', exact: true }).click();
    await expect(ben.getByText('Ordered as Ben Franklin')).toBeVisible();
    await expect(ben.getByRole('link', { name: cup })).toHaveCount(0);

    await page.goto(link);
    await page.getByRole('button', { name: 'Cancel order' }).click();
    await page.getByRole('dialog').getByRole('button', { name: 'Cancel order' }).click();
    await expect(heading(page, 'Cancelled')).toBeVisible();

    await page.getByRole('button', { name: 'Signed in as Ada Lovelace' }).click();
    await page.getByRole('button', { name: 'Sign out' }).click();
    await expect(page.getByRole('button', { name: 'Sign in' })).toBeVisible();
    await page.goto(link);
    await expect(heading(page, 'Sign in to see this order')).toBeVisible();
  });
});

test.describe('a token that ends', () => {
  test.use({ tolerated: [failedLoads] }); // the browser reports every 401

  test('while an order is pending is renewed, and the order continues', async ({ page, context, api }) => {
    await page.goto('/');
    await signIn(page, 'ada');
    // What the page asks about the order gets no answer until its token has ended. The next request then arrives with that.
    let began = 0;
    const answers: number[] = [];
    let old: string | undefined;
    let late = false;
    const asked = /\/orders\/[^/?]+(\/events)?$/;
    page.on('response', (response) => {
      if (asked.test(response.url())) answers.push(response.status());
    });
    await context.route(asked, async (route) => {
      const headers = route.request().headers();
      if (old === undefined) {
        old = headers['authorization'] ?? '';
        began = Date.now();
        return;
      }
      await page.waitForTimeout(Math.max(0, began + lifetime + leeway - Date.now()));
      await route.continue(late ? {} : { headers: { ...headers, authorization: old } }).catch(() => undefined); // given up meanwhile
      late = true;
    });
    await order(page, api);
    await expect(heading(page, 'Reserving stock')).toBeVisible();
    await expect(heading(page, 'Confirmed')).toBeVisible({ timeout: lifetime + leeway + 20_000 });
    expect(answers[0]).toBe(401);
    expect(answers).toContain(200);
    expect(await page.evaluate(() => performance.getEntriesByType('navigation').length)).toBe(1);
  });

  test('with its session leaves the page, says so, and signing in leads back', async ({ page, context, api, issuer }) => {
    await page.goto('/');
    await signIn(page, 'ada');
    const cup = await order(page, api);
    await expect(heading(page, 'Confirmed')).toBeVisible();
    const link = page.url();
    await context.request.post(`${issuer}/sign-out`);
    await page.getByRole('link', { name: 'Orders', exact: true }).click();
    await expect(page.getByText('Your session has ended')).toBeVisible({ timeout: lifetime + 20_000 });
    await page.goBack();
    await expect(page).toHaveURL(link);
    await signIn(page, 'ada');
    await expect(page).toHaveURL(link);
    await expect(heading(page, 'Confirmed')).toBeVisible();
    await expect(page.getByText(cup).first()).toBeVisible();
  });
});

const lifetime = 8000; // ms, of the access tokens here
const leeway = 31_000; // ms, that the gateway allows for between clocks, and a little

test('no token is stored, and a reload is signed in again', async ({ page, api }) => {
  await page.goto('/history');
  await signIn(page, 'ada');
  await order(page, api);
  await expect(heading(page, 'Confirmed')).toBeVisible();
  const stored = await page.evaluate(() => JSON.stringify([localStorage, sessionStorage]));
  expect(stored).not.toMatch(/eyJ|token/i);
  await page.reload();
  await expect(heading(page, 'Confirmed')).toBeVisible();
  await expect(page.getByRole('button', { name: 'Signed in as Ada Lovelace' })).toBeVisible();
});

test('an issuer that has to show a page after a reload does so, and then leads back', async ({ page, context, issuer }) => {
  await page.goto('/history');
  await signIn(page, 'ada');
  let silently = 0;
  await context.route(`${issuer}/authorize*`, async (route) => {
    const asked = new URL(route.request().url()).searchParams;
    if (asked.get('prompt') !== 'none') return route.continue();
    silently++;
    const location = `${asked.get('redirect_uri') ?? ''}?error=consent_required&state=${asked.get('state') ?? ''}`;
    return route.fulfill({ status: 302, headers: { location } });
  });
  await page.reload();
  await expect(page.getByText('Ordered as Ada Lovelace')).toBeVisible();
  expect(new URL(page.url()).pathname).toBe('/history');
  expect(silently).toBe(1);
});

test('signing out in one tab is signing out in all', async ({ page, context }) => {
  await page.goto('/history');
  await signIn(page, 'ada');
  const tab = await context.newPage();
  await tab.goto('/history');
  await expect(tab.getByText('Ordered as Ada Lovelace')).toBeVisible(); // asked by nobody
  await page.getByRole('button', { name: 'Signed in as Ada Lovelace' }).click();
  await page.getByRole('button', { name: 'Sign out' }).click();
  await expect(heading(tab, 'Sign in to have orders')).toBeVisible();
});

test('the page shows what an account may do, and says why not', async ({ page, api, browser, baseURL }) => {
  const cup = await api.add('Espresso cup', 5);
  await page.goto('/stock');
  await expect(heading(page, 'Sign in to change the catalog')).toBeVisible();
  await signIn(page, 'ada');
  await expect(heading(page, 'Your account may not change the catalog')).toBeVisible();
  await expect(page.getByRole('link', { name: 'Stock' })).toBeHidden();
  await page.getByRole('button', { name: 'Signed in as Ada Lovelace' }).click();
  await expect(page.getByRole('dialog')).toContainText('Needs the scope stock');

  const kim = await another(browser, baseURL);
  await kim.goto(`/stock?q=${api.mark}`);
  await signIn(kim, 'kim');
  await kim.getByRole('button', { name: `Restock ${cup.name}` }).click();
  await kim.getByRole('dialog').getByRole('textbox', { name: 'Units received' }).fill('7');
  await kim.getByRole('dialog').getByRole('button', { name: 'Add to stock' }).click();
  await expect(kim.getByRole('dialog')).toBeHidden();
  expect((await api.product(cup.productId)).stock).toBe(12);
  await kim.goto(`/?q=${api.mark}`);
  await kim.getByRole('button', { name: `Add to basket: ${cup.name}` }).click();
  await kim.getByRole('link', { name: /^Basket/ }).click();
  await expect(kim.getByText("Your account is not a customer's")).toBeVisible();
});

test.describe('without the issuer', () => {
  test.use({ tolerated: [/Failed to load resource|ERR_/] });

  test('the shop is open and says that nobody can sign in', async ({ page, context, issuer }) => {
    await context.route(`${issuer}/**`, (route) => route.abort());
    await page.goto('/');
    await page.getByRole('button', { name: 'Sign in' }).click();
    await expect(page.getByText('the accounts cannot be reached')).toBeVisible();
    await expect(heading(page, 'Shop')).toBeVisible();
    await context.unroute(`${issuer}/**`);
    await page.getByRole('button', { name: 'Try again' }).click();
    await expect(page.getByLabel('Password')).toBeVisible();
  });
});

// What axe cannot decide by itself, and why it is all right.
const undecided: Record<string, string> = {};

/** Looks with axe, in light and in dark, also at what it is not sure of, and for what does not fit on the screen. */
async function look(page: Page, name: string): Promise<void> {
  const pictures = process.env['ACCOUNT_PICTURES'];
  for (const colorScheme of ['light', 'dark'] as const) {
    await page.emulateMedia({ colorScheme, reducedMotion: 'reduce' });
    await page.evaluate(() => Promise.all(document.getAnimations().map((animation) => animation.finished.catch(() => undefined))));
    if (pictures !== undefined) await page.screenshot({ path: `${pictures}/${name}-${colorScheme}-${page.viewportSize()?.width ?? 0}.png`, fullPage: true });
    const behind = (await page.getByRole('dialog').count()) > 0 ? ['landmark-one-main', 'page-has-heading-one'] : [];
    const { violations, incomplete } = await new AxeBuilder({ page }).setLegacyMode().disableRules(behind).analyze();
    const told = (found: typeof violations) => found.map(({ id, help, nodes }) => `${id}: ${help}: ${nodes.map((node) => `${node.target.join(' ')} ${node.failureSummary ?? ''}`).join('; ')}`);
    expect(told(violations), `${name} in ${colorScheme}`).toEqual([]);
    expect(told(incomplete.filter(({ id }) => undecided[id] === undefined)), `${name} in ${colorScheme}, not decided`).toEqual([]);
  }
  expect(await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth), `${name} is wider than the screen by`).toBe(0);
}

test.describe('with a wrong password', () => {
  test.use({ tolerated: [failedLoads] });

  test('the pages of accounts are accessible', async ({ page, issuer }) => {
    await page.goto('/history');
    await expect(heading(page, 'Sign in to have orders')).toBeVisible();
    await look(page, 'signed-out');
    await page.getByRole('button', { name: 'Sign in' }).first().click();
    await expect(page.getByLabel('Password')).toBeVisible();
    await look(page, 'sign-in');
    await page.getByLabel('Name').fill('ada');
    await page.getByLabel('Password').fill('wrong');
    await page.getByRole('button', { name: 'Sign in', exact: true }).click();
    await expect(page.getByRole('alert')).toContainText('do not belong together');
    await look(page, 'sign-in-wrong');
    await page.getByRole('button', { name: /^Ada Lovelace/ }).click();
    await page.getByRole('button', { name: 'Signed in as Ada Lovelace' }).click();
    await expect(page.getByRole('dialog')).toBeVisible();
    await look(page, 'account');
    await page.goto('/stock');
    await expect(heading(page, 'Your account may not change the catalog')).toBeVisible();
    await look(page, 'not-for-you');

    const device = (await (
      await fetch(`${issuer}/device_authorization`, { method: 'POST', body: new URLSearchParams({ client_id: 'orderflow-cli', scope: 'openid' }) })
    ).json()) as { user_code: string };
    await page.goto(`${issuer}/device`);
    await look(page, 'code');
    await page.getByLabel('Code').fill(device.user_code.toLowerCase());
    await page.getByRole('button', { name: 'Continue' }).click();
    await expect(page.getByText('will act as Ada Lovelace')).toBeVisible();
    await look(page, 'device');
    await page.getByRole('button', { name: 'Allow', exact: true }).click();
    await expect(heading(page, 'Signed in')).toBeVisible();
    await page.goto(`${issuer}/sign-out`);
    await look(page, 'sign-out');
    await page.getByRole('button', { name: 'Sign out' }).click();
    await expect(page.getByRole('status')).toContainText('Nobody is signed in');
  });
});
