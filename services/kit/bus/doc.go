// Package bus publishes and consumes events over RabbitMQ (AMQP 0-9-1).
//
// Publishing means routed and confirmed: every event is mandatory, a returned
// one is an error, and Publish answers only when the broker has confirmed
// (https://www.rabbitmq.com/docs/confirms). Not confirmed means unknown, never
// lost: the outbox publishes again.
//
// Consuming means handled or kept. A consumer takes what has arrived, up to a
// batch, and waits for more only while it is busy, for Config.Linger; the
// handler commits the batch's effects in
// one transaction, and only then are its messages acknowledged, in one frame.
// What cannot be handled goes one of four ways:
//
//   - It cannot be decoded, has a foreign type, or the handler says Permanent:
//     to its dead-letter queue at once, with the reason in headers.
//   - The handler fails: each message of the batch is tried alone, so that its
//     mates are unharmed, and the failing one is held back for a growing delay,
//     then rejected. Rejecting counts as a failed delivery; over the queue's
//     delivery limit the broker dead-letters it.
//   - The database is unavailable: the consumer pauses and tries the same batch
//     again, so that an outage burns no deliveries.
//   - The consumer drains: what it has is finished, the rest is given back with
//     basic.nack, which RabbitMQ 4.3 and later do not count as a failure.
//
// Connections and channels that break are opened again for ever, with backoff
// and jitter; Ready tells meanwhile. The client library's own recovery is off:
// it would race with ours, and it gives up.
//
// The bus declares nothing. Exchanges, queues and bindings exist already, and
// the broker users of the services could not declare any.
package bus
