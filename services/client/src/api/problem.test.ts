import { describe, expect, it } from 'vitest';
import { explain, noAnswer, Problem, toProblem } from './problem.ts';

function answer(status: number, headers: Record<string, string> = {}): Response {
  return new Response(null, { status, headers });
}

describe('toProblem', () => {
  it('takes over what the server says', () => {
    const problem = toProblem(answer(422), {
      type: '/problems/validation',
      title: 'The request is not valid',
      status: 422,
      errors: [{ field: 'items[0].quantity', detail: 'must be 1 to 10000' }],
    });
    expect(problem.type).toBe('/problems/validation');
    expect(problem.fields).toEqual({ 'items[0].quantity': 'must be 1 to 10000' });
    expect(problem.passing).toBe(false);
  });

  it('reads how long to wait', () => {
    expect(toProblem(answer(503, { 'Retry-After': '2' }), {}).retryAfter).toBe(2000);
    expect(toProblem(answer(503), {}).retryAfter).toBeUndefined();
  });

  it('knows where to look for what may have been made', () => {
    const unknown = toProblem(answer(504, { Location: '/orders/7' }), { type: '/problems/outcome-unknown', title: 'Unknown', status: 504 });
    expect(unknown.outcomeUnknown).toBe(true);
    expect(unknown.location).toBe('/orders/7');
    expect(toProblem(answer(504), { type: '/problems/upstream-timeout' }).outcomeUnknown).toBe(false);
    expect(toProblem(answer(503), {}).location).toBeUndefined();
  });

  it.each([undefined, '<html>', null, 7])('makes do with a body of %j', (body) => {
    const problem = toProblem(answer(502), body);
    expect(problem.status).toBe(502);
    expect(problem.message).toBe('The server answered 502');
  });
});

describe('what may pass', () => {
  it.each([
    [0, true],
    [400, false],
    [404, false],
    [412, false],
    [422, false],
    [500, false],
    [502, true],
    [503, true],
    [504, true],
  ])('status %d: %s', (status, passing) => {
    expect(new Problem({ type: '/problems/x', title: 'x', status }).passing).toBe(passing);
  });
});

describe('explain', () => {
  const problem = (type: string, status: number, detail?: string) => new Problem({ type, title: 'Its title', status, ...(detail !== undefined && { detail }) });

  it.each([
    [noAnswer(), 'The shop cannot be reached'],
    [problem('/problems/unavailable', 503), 'Back in a moment'],
    [problem('/problems/bad-gateway', 502), 'No answer in time'],
    [problem('/problems/upstream-timeout', 504), 'No answer in time'],
    [problem('/problems/outcome-unknown', 504), 'No answer in time'],
    [problem('/problems/precondition-failed', 412), 'Changed in the meantime'],
    [problem('/problems/too-large', 413), 'Its title'],
    [new TypeError('x is not a function'), 'Something went wrong'],
  ])('%s: %s', (error, title) => {
    expect(explain(error).title).toBe(title);
  });

  it('names the field that is wrong', () => {
    const invalid = new Problem({ type: '/problems/validation', title: 'x', status: 422, errors: [{ field: 'name', detail: 'must not be blank' }] });
    expect(explain(invalid).text).toBe('name must not be blank');
  });

  it('shows nothing of an error of our own', () => {
    expect(explain(new Error('secret')).text).not.toContain('secret');
  });
});
