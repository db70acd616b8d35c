// Prints what a first visit loads, page by page, and fails when that is more
// than the budget. Counts what the server sends to today's browsers: brotli for
// text, fonts as they are.
import { readFileSync, statSync, existsSync } from 'node:fs';

const budget = 120_000; // bytes
const dist = new URL('../dist/', import.meta.url);

/** @type {Record<string, { file: string, isEntry?: boolean, imports?: string[], css?: string[], assets?: string[] }>} */
const manifest = JSON.parse(readFileSync(new URL('.vite/manifest.json', dist), 'utf8'));

// Loaded only by pages with letters that English does not have.
const rarely = /figtree-latin1/;

/** The modules that each page needs besides the entry. @type {Record<string, string[]>} */
const pages = {
  '/': [],
  '/basket': ['src/pages/basket.tsx'],
  '/order/…': ['src/pages/order.tsx'],
  '/history': ['src/pages/history.tsx'],
  '/stock': ['src/pages/stock.tsx'],
  '/operations': ['src/pages/operations.tsx'],
};

/** @type {(key: string, files: Set<string>) => void} */
function collect(key, files) {
  const chunk = manifest[key];
  if (!chunk) throw new Error(`the manifest has no ${key}`);
  if (files.has(chunk.file)) return;
  for (const file of [chunk.file, ...(chunk.css ?? []), ...(chunk.assets ?? [])]) if (!rarely.test(file)) files.add(file);
  for (const imported of chunk.imports ?? []) collect(imported, files);
}

/** @type {(file: string, suffix: string) => number} */
function size(file, suffix) {
  const compressed = new URL(file + suffix, dist);
  return statSync(existsSync(compressed) ? compressed : new URL(file, dist)).size;
}

const entry = Object.entries(manifest).find(([, chunk]) => chunk.isEntry)?.[0];
if (entry === undefined) throw new Error('the manifest has no entry');

let over = false;
/** @type {(bytes: number) => string} */
const kB = (bytes) => `${(bytes / 1000).toFixed(1)} kB`.padStart(9);
console.log(`first load    brotli      gzip   (budget ${kB(budget).trim()})`);
for (const [page, keys] of Object.entries(pages)) {
  const files = new Set(['index.html', 'theme.js', 'favicon.svg']);
  for (const key of [entry, ...keys]) collect(key, files);
  /** @type {(suffix: string) => number} */
  const sum = (suffix) => [...files].reduce((total, file) => total + size(file, suffix), 0);
  over ||= sum('.br') > budget;
  console.log(`${page.padEnd(11)}${kB(sum('.br'))} ${kB(sum('.gz'))}`);
  if (page === '/') for (const file of files) console.log(`  ${kB(size(file, '.br'))} ${kB(size(file, '.gz'))}  ${file}`);
}
if (over) {
  console.error(`A first load is over ${kB(budget).trim()}.`);
  process.exitCode = 1;
}
