import { randomHex } from '../random.ts';

// The client begins the traces: what a person does is the root that the
// gateway's and all further spans hang from (W3C Trace Context, level 2).

export interface Trace {
  readonly traceId: string; // 32 hexadecimal digits
  readonly sampled: boolean;
}

/** Begins a trace, recorded with the probability given. */
export function newTrace(ratio: number): Trace {
  return { traceId: randomHex(16), sampled: Math.random() < ratio };
}

/** The traceparent header of one request of a trace. */
export function traceparent(trace: Trace): string {
  return `00-${trace.traceId}-${randomHex(8)}-${trace.sampled ? '01' : '00'}`;
}
