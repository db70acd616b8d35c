import type { components } from './schema.ts';

type Body = components['schemas']['Problem'];

/** What went wrong with a request, by the words of RFC 9457. */
export class Problem extends Error {
  /** Stable name, as "/problems/validation"; '' when no answer came at all. */
  readonly type: string;
  /** HTTP status; 0 when no answer came at all. */
  readonly status: number;
  readonly detail: string | undefined;
  /** Sentences about fields, by their path in the body. */
  readonly fields: Readonly<Record<string, string>>;
  /** How long the server asks to wait, in ms. */
  readonly retryAfter: number | undefined;
  /** Where to look for what the request may have made. */
  readonly location: string | undefined;

  constructor(body: Body, retryAfter?: number, location?: string) {
    super(body.title);
    this.name = 'Problem';
    this.type = body.type;
    this.status = body.status;
    this.detail = body.detail;
    this.fields = Object.fromEntries((body.errors ?? []).map(({ field, detail }) => [field, detail]));
    this.retryAfter = retryAfter;
    this.location = location;
  }

  /** The request may have taken effect: look, before you do it again. */
  get outcomeUnknown(): boolean {
    return this.type === '/problems/outcome-unknown';
  }

  /** Nothing is wrong with the request: it may work in a moment. */
  get passing(): boolean {
    return this.status === 0 || this.status === 429 || this.status === 502 || this.status === 503 || this.status === 504;
  }
}

/** The connection failed before an answer came. */
export function noAnswer(): Problem {
  return new Problem({ type: '', title: 'The shop cannot be reached', status: 0 });
}

/** Makes a problem of an answer that is not a success and its parsed body. */
export function toProblem(response: Response, body: unknown): Problem {
  const seconds = Number(response.headers.get('Retry-After') ?? Number.NaN);
  const known = typeof body === 'object' && body !== null ? (body as Partial<Body>) : {};
  const fallback = { type: '/problems/unknown', title: `The server answered ${response.status}` };
  return new Problem(
    { ...fallback, ...known, status: response.status },
    Number.isFinite(seconds) ? seconds * 1000 : undefined,
    response.headers.get('Location') ?? undefined,
  );
}

export interface Explanation {
  title: string;
  text: string;
}

/** Says to a person what happened and what to do. */
export function explain(error: unknown): Explanation {
  if (!(error instanceof Problem)) {
    return { title: 'Something went wrong', text: 'That is our fault. Loading the page again may help.' };
  }
  switch (error.type) {
    case '':
      return { title: 'The shop cannot be reached', text: 'The connection failed before an answer came.' };
    case '/problems/accounts-unreachable':
      return { title: 'You cannot be signed in right now', text: 'Your session has to be renewed, and the accounts cannot be reached.' };
    case '/problems/unauthorized':
      return { title: 'Please sign in', text: 'This is for people who are signed in.' };
    case '/problems/forbidden':
      return { title: 'Your account may not do this', text: error.detail ?? 'It takes another one.' };
    case '/problems/too-many-requests':
      return { title: 'Too much at once', text: 'Wait a moment and try again.' };
    case '/problems/unavailable':
      return { title: 'Back in a moment', text: 'A part of the shop is not available right now.' };
    case '/problems/bad-gateway':
    case '/problems/outcome-unknown':
    case '/problems/upstream-timeout':
      return { title: 'No answer in time', text: 'It is not certain whether it took effect. Have a look before you try again.' };
    case '/problems/not-found':
      return { title: 'Not found', text: error.detail ?? 'There is nothing here.' };
    case '/problems/precondition-failed':
      return { title: 'Changed in the meantime', text: 'Someone else has changed this since you opened it.' };
    case '/problems/validation': {
      const [first] = Object.entries(error.fields);
      return { title: 'Please check what you entered', text: first ? `${first[0]} ${first[1]}` : (error.detail ?? error.message) };
    }
    default:
      return { title: error.message, text: error.detail ?? Object.values(error.fields).join('; ') };
  }
}
