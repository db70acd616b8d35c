import AxeBuilder from '@axe-core/playwright';
import { expect, test, type Page } from './fixtures.ts';

/** Looks with axe, in light and in dark, and for what does not fit on the screen. */
export async function look(page: Page): Promise<void> {
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
