import { afterEach, describe, expect, it, vi } from 'vitest';
import { config, loadConfig, parseConfig, traceUrl } from './config.ts';

afterEach(() => {
  Object.assign(config, { jaegerUrl: '' });
});

describe('parseConfig', () => {
  it('takes what the server says', () => {
    expect(parseConfig({ jaegerUrl: 'http://localhost:16686/' })).toEqual({ jaegerUrl: 'http://localhost:16686' });
  });

  it.each([null, 'text', {}, { jaegerUrl: 'javascript:alert(1)' }, { jaegerUrl: 7 }])(
    'takes nothing from %j',
    (value) => {
      expect(parseConfig(value)).toEqual({});
    },
  );
});

it('links to a trace when there is a Jaeger', async () => {
  expect(traceUrl('abc')).toBeUndefined();
  vi.stubGlobal('fetch', () => Promise.resolve(Response.json({ jaegerUrl: 'https://jaeger.example/ui' })));
  await loadConfig();
  expect(traceUrl('abc')).toBe('https://jaeger.example/ui/trace/abc');
});

it.each([
  ['out of reach', () => Promise.reject(new TypeError('fetch failed'))],
  ['missing', () => Promise.resolve(new Response('', { status: 404 }))],
  ['not JSON', () => Promise.resolve(new Response('<html>'))],
])('opens without a configuration that is %s', async (_, answer) => {
  vi.stubGlobal('fetch', answer);
  await loadConfig();
  expect(config).toEqual({ jaegerUrl: '' });
});
