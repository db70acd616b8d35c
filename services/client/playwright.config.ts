import { defineConfig, devices } from '@playwright/test';

// Debian's Chromium: no browser is downloaded. Where it lies elsewhere, CHROMIUM says so.
const executablePath = process.env['CHROMIUM'] ?? '/usr/bin/chromium';

export default defineConfig({
  testDir: 'e2e',
  outputDir: 'test-results',
  fullyParallel: true,
  workers: 2,
  forbidOnly: process.env['CI'] !== undefined,
  timeout: 120_000, // generous: on a busy machine, all that is waited for is late
  expect: { timeout: 15_000 },
  reporter: 'list',
  use: {
    baseURL: process.env['BASE_URL'] ?? 'http://localhost:5108',
    locale: 'en-GB',
    trace: 'off', // costs a quarter of the time; npm run e2e -- --trace on
    launchOptions: {
      executablePath,
      args: [
        '--no-sandbox', // the tests may run as root in a container
        '--disable-gpu',
        '--disable-quic',
        '--no-first-run',
        '--disable-background-networking',
        '--disable-component-update',
        '--disable-sync',
      ],
    },
  },
  // A system with accounts is another one, with tests of its own.
  projects: process.env['ACCOUNTS'] !== undefined ? [
    { name: 'accounts', testMatch: /accounts\.spec/, use: { viewport: { width: 1280, height: 860 } } },
    { name: 'accounts phone', testMatch: /accounts\.spec/, grep: /accessible/, use: { ...devices['Pixel 7'], deviceScaleFactor: 1 } },
  ] : [
    { name: 'desktop', testIgnore: /accounts\.spec/, use: { viewport: { width: 1280, height: 860 } } },
    // What a phone does not change is left to the desktop. Its real pixels would only cost time: there is no GPU.
    {
      name: 'phone',
      testMatch: /(accessibility|operations|order)\.spec/,
      grepInvert: /with a bad connection/,
      use: { ...devices['Pixel 7'], deviceScaleFactor: 1 },
    },
    ...(process.env['PICTURES'] === undefined
      ? []
      : [{ name: 'pictures', testMatch: /pictures\.ts/, use: { viewport: { width: 1280, height: 860 }, deviceScaleFactor: 2 } }]),
  ],
});
