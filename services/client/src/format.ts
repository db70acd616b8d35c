// The pages are English; numbers and times follow the reader's kind of it.
export const locale = globalThis.navigator.languages.find((language) => language.startsWith('en')) ?? 'en-GB';

const numbers = new Intl.NumberFormat(locale);
const currencies = new Map<string, Intl.NumberFormat>();

/** An amount of whole cents, as €129.00. */
export function money(cents: number, currency: string): string {
  let format = currencies.get(currency);
  if (!format) {
    format = new Intl.NumberFormat(locale, { style: 'currency', currency, minimumFractionDigits: 2, maximumFractionDigits: 2 });
    currencies.set(currency, format);
  }
  return format.format(cents / 100);
}

export function count(n: number): string {
  return numbers.format(n);
}

/** A number with its noun: 1 item, 3 items. */
export function counted(n: number, noun: string): string {
  return `${count(n)} ${noun}${n === 1 ? '' : 's'}`;
}

const clock = new Intl.DateTimeFormat(locale, { hour: 'numeric', minute: '2-digit' });
const clockSeconds = new Intl.DateTimeFormat(locale, { hour: 'numeric', minute: '2-digit', second: '2-digit' });
const day = new Intl.DateTimeFormat(locale, { weekday: 'long', day: 'numeric', month: 'long' });
const dayOfYear = new Intl.DateTimeFormat(locale, { day: 'numeric', month: 'long', year: 'numeric' });
const full = new Intl.DateTimeFormat(locale, { dateStyle: 'medium', timeStyle: 'medium' });

export function timeOfDay(at: string): string {
  return clock.format(new Date(at));
}

export function timeWithSeconds(at: string): string {
  return clockSeconds.format(new Date(at));
}

export function fullTime(at: string): string {
  return full.format(new Date(at));
}

const distances = new Intl.RelativeTimeFormat(locale, { numeric: 'auto' });
const spans = [['day', 86_400], ['hour', 3600], ['minute', 60]] as const; // in seconds

/** How long ago a time was: just now, 5 minutes ago, yesterday, 12 days ago. */
export function ago(at: string, now: Date = new Date()): string {
  const seconds = (now.getTime() - Date.parse(at)) / 1000;
  const span = spans.find(([, length]) => seconds >= length);
  return span ? distances.format(-Math.floor(seconds / span[1]), span[0]) : 'just now'; // also when the clocks differ
}

/** The day of a time as people call it: Today, Yesterday, Monday 2 November, 2 November 2025. */
export function dayName(at: string, now: Date = new Date()): string {
  const then = new Date(at);
  const days = Math.round((startOfDay(now) - startOfDay(then)) / 86_400_000); // also over a change of the clocks
  if (days === 0) return 'Today';
  if (days === 1) return 'Yesterday';
  return (then.getFullYear() === now.getFullYear() ? day : dayOfYear).format(then);
}

function startOfDay(at: Date): number {
  return new Date(at.getFullYear(), at.getMonth(), at.getDate()).getTime();
}

/** Time from one moment to another: 420 µs, 12 ms, 1.24 s, 2 min 5 s. Times have microseconds. */
export function elapsed(from: string, to: string): string {
  const µs = microseconds(to) - microseconds(from);
  const abs = Math.abs(µs);
  if (abs < 1000) return `${µs} µs`;
  if (abs < 10_000) return `${(µs / 1000).toFixed(1)} ms`;
  if (abs < 1_000_000) return `${Math.round(µs / 1000)} ms`;
  if (abs < 60_000_000) return `${(µs / 1_000_000).toFixed(2)} s`;
  const seconds = Math.round(µs / 1_000_000);
  return `${Math.trunc(seconds / 60)} min ${Math.abs(seconds % 60)} s`;
}

/** Date only keeps milliseconds. */
function microseconds(at: string): number {
  const fraction = /\.(\d+)/.exec(at)?.[1] ?? '';
  const below = Number(fraction.padEnd(6, '0').slice(3, 6));
  return Date.parse(at) * 1000 + below;
}

const sizes = ['bytes', 'kB', 'MB', 'GB'] as const;

/** A size: 1 byte, 640 bytes, 1.5 kB, 10 MB. */
export function bytes(n: number): string {
  if (n < 1000) return counted(n, 'byte');
  const power = Math.min(Math.floor(Math.log10(n) / 3), sizes.length - 1);
  const value = n / 1000 ** power;
  return `${value < 10 ? value.toFixed(1) : Math.round(value)} ${sizes[power] ?? ''}`;
}

/** The end of an id, enough to tell one from another: UUIDs of version 7 begin alike. */
export function shortId(id: string): string {
  return id.slice(-8).toUpperCase();
}

/** First letters of a name. */
export function initials(name: string): string {
  const words = name.trim().split(/\s+/);
  const ends = [words.at(0), words.length > 1 ? words.at(-1) : ''];
  return ends.map((word) => String.fromCodePoint(...[word?.codePointAt(0)].filter((c) => c !== undefined))).join('').toUpperCase();
}
