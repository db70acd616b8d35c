// Package web serves JSON over HTTP: a router that traces, measures and
// recovers, handlers that return errors, problem details (RFC 9457) from one
// table, strict request bodies, and a server that drains before it stops.
//
// # Errors
//
// A handler wrapped by [Handle] returns its error; [Error] is the one place
// that decides what the client sees of it. A [Problem] is an error, so that
// handlers return NotFound("…") or Invalid(…) where they find out. What the
// table does not know becomes a 500 without detail. Failures (5xx) are logged
// once, there, with the trace id.
//
// # Instrumentation
//
// Spans and metrics are made here, after the OpenTelemetry conventions, and not
// by otelhttp (0.72): that writes the client's address and user agent into each
// span and has no option against it, labels the duration by the Host header,
// which is any client's to choose, and knows nothing of chi's routes. It also
// makes 38 allocations for a request where this makes 5 (42 and 22 with tracing
// on).
//
// # Drain
//
// When [Server.Run] is told to stop, /readyz answers 503 while requests are
// still served for DRAIN_DELAY, each with "Connection: close", so that load
// balancers and clients move away by themselves. Then no connection is
// accepted, and the channel of [Draining] tells handlers that wait (long polls,
// event streams) to finish with what they have. Connections that carry nothing
// stay open for another moment, for a request that may be on its way. Requests
// still in flight after two thirds of SHUTDOWN_TIMEOUT are cut off; the rest of
// it belongs to what stops after the server.
package web
