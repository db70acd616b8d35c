import type { Letter } from '../api/deadletters.ts';

/**
 * Sets JSON on lines without reading its values: numbers keep all their digits,
 * and names that are there twice stay.
 */
export function indentJson(json: string): string {
  let depth = 0;
  let out = '';
  const line = () => `\n${'  '.repeat(depth)}`;
  for (const [token] of json.matchAll(/"(?:[^"\\]|\\.)*"|[[\]{},:]|[^\s[\]{},:"]+/g)) {
    const empty = (token === '}' && out.endsWith('{')) || (token === ']' && out.endsWith('['));
    if (token === '}' || token === ']') {
      depth--;
      out += empty ? token : line() + token;
    } else {
      if (/[[{]$/.test(out) && depth > 0) out += line();
      if (token === '{' || token === '[') depth++;
      out += token === ',' ? token + line() : token === ':' ? ': ' : token;
    }
  }
  return out;
}

const width = 16;
const shown = 1024; // bytes of a body that is no text

/** Bytes as people read them: where, in hexadecimal, and as characters. */
export function hexDump(base64: string): string {
  const bytes = atob(base64).slice(0, shown);
  const lines = [];
  for (let at = 0; at < bytes.length; at += width) {
    const line = bytes.slice(at, at + width);
    const hex = Array.from(line, (c) => c.charCodeAt(0).toString(16).padStart(2, '0')).join(' ');
    lines.push(`${at.toString(16).padStart(6, '0')}  ${hex.padEnd(3 * width - 1)}  ${line.replaceAll(/[^ -~]/g, '·')}`);
  }
  return lines.join('\n');
}

export interface Readable {
  kind: string;
  text: string;
  /** Not all of it is here. */
  cut: boolean;
}

/** A letter's body as it can be shown. */
export function readableBody({ body, bodyBytes }: Pick<Letter, 'body' | 'bodyBytes'>): Readable {
  if (bodyBytes === 0) return { kind: 'Empty', text: '', cut: false };
  if (body.json !== undefined) return { kind: 'JSON', text: indentJson(body.json), cut: body.truncated };
  if (body.text !== undefined) return { kind: 'Text', text: body.text, cut: body.truncated };
  return { kind: 'Binary', text: hexDump(body.base64 ?? ''), cut: body.truncated || bodyBytes > shown };
}
