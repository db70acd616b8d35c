// Cuts the text font in two: the letters of English, which every visit loads,
// and the other ones of Latin-1, which browsers load when a page has one.
import { readFileSync, writeFileSync } from 'node:fs';
import subset from 'subset-font';

const family = new URL('../node_modules/@fontsource-variable/figtree/', import.meta.url);
const target = new URL('../src/styles/fonts/', import.meta.url);
const source = readFileSync(new URL('files/figtree-latin-wght-normal.woff2', family));

/** @type {(from: number, to: number) => string} */
const range = (from, to) => Array.from({ length: to - from + 1 }, (_, i) => String.fromCodePoint(from + i)).join('');

// The unicode-range of each in tokens.css says the same.
const parts = {
  'figtree-basic.woff2': `${range(0x20, 0x7e)}\u00a0\u00b5\u00b7\u00d7${range(0x2013, 0x2014)}${range(0x2018, 0x201d)}\u2026\u20ac\u2212`,
  'figtree-latin1.woff2': range(0xa1, 0xff),
};

for (const [name, text] of Object.entries(parts)) {
  const font = await subset(source, text, { targetFormat: 'woff2', variationAxes: { wght: { min: 400, max: 700 } } });
  writeFileSync(new URL(name, target), font);
  console.log(`${name} ${font.length} bytes`);
}
writeFileSync(new URL('LICENSE', target), readFileSync(new URL('LICENSE', family)));
