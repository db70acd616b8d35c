import { expect, test, vi } from 'vitest';
import { accountOf, begun } from './accounts.ts';
import { authorizedFetch } from './session.ts';
import { parseSettings } from './settings.ts';

test('without an issuer there are no accounts', () => {
  for (const value of [{}, null, 'x', { issuer: '' }, { issuer: 7 }]) expect(parseSettings(value)).toBeUndefined();
});

test('settings are read with what the gateway leaves out', () => {
  expect(parseSettings({ issuer: 'http://localhost:5180', clientId: 'web', scopes: ['openid', 'stock', 3] })).toEqual({
    issuer: 'http://localhost:5180',
    clientId: 'web',
    audience: 'orderflow',
    scopes: ['openid', 'profile', 'stock'],
    customerClaim: 'customer_id',
    stockScope: 'stock',
    operationsScope: 'operations',
  });
});

test('a sign-in leads back to a page of ours and nowhere else', () => {
  for (const ours of ['/', '/order/x?y=z', '/basket']) expect(begun({ to: ours })).toEqual({ to: ours, silently: false });
  for (const other of ['//evil.example', '/\\evil.example', 'https://evil.example', 'javascript:x', undefined, 5]) expect(begun({ to: other }).to).toBe('/');
  for (const nothing of [undefined, null, 'x', 5]) expect(begun(nothing)).toEqual({ to: '/', silently: false });
});

test('scopes say what an account may do', () => {
  const settings = parseSettings({ issuer: 'i', customerClaim: 'cust', stockScope: 'shelf', operationsScope: 'ops' });
  if (!settings) throw new Error('no settings');
  const may = (scopes: string[], claims = {}) => accountOf({ profile: { sub: 's', iss: 'i', aud: 'w', exp: 0, iat: 0, ...claims }, scopes }, settings);
  expect(may(['openid'], { name: 'Ada', cust: 'c1' })).toEqual({ name: 'Ada', customerId: 'c1', stock: false, operations: false });
  expect(may(['shelf'])).toEqual({ name: 's', stock: true, operations: false });
  expect(may(['ops'], { preferred_username: 'o' })).toEqual({ name: 'o', stock: true, operations: true });
});

test('requests of nobody carry no token', async () => {
  const fetched = vi.fn<typeof fetch>(() => Promise.resolve(new Response()));
  vi.stubGlobal('fetch', fetched);
  await authorizedFetch(new Request('http://localhost/orders'));
  expect((fetched.mock.calls[0]?.[0] as Request).headers.has('Authorization')).toBe(false);
});
