// Package bus publishes and consumes events over RabbitMQ (AMQP 0-9-1).
//
// # Publishing
//
// Publishing means routed and confirmed: every event is mandatory, and
// [Publisher.Publish] answers only when the broker has confirmed
// (https://www.rabbitmq.com/docs/confirms). Each event has an outcome of its
// own:
//
//   - nil: it is in at least one queue.
//   - [RefusedError]: the broker does not take it. No queue is bound for it, a
//     queue refuses it (a negative confirm), it made the broker close the
//     channel (403, 404, 406), or AMQP has no room for it. Nothing else is
//     refused with it.
//   - any other error: unknown. The connection was lost, or no confirm came
//     within [Config].ConfirmTimeout. It may or may not be in its queues.
//
// Whoever keeps the event publishes it again: what is unknown soon, what is
// refused later and without letting others wait for it.
//
// # Consuming
//
// Consuming means handled or kept. A consumer takes what has arrived, up to a
// batch, and waits for more only while it is busy, for [Config].Linger; the
// handler commits the batch's effects in one transaction, and only then are its
// messages acknowledged, in one frame. This is the way of a message:
//
//	queue ----> arrived --------> handled --------> acknowledged
//	  ^            |              |  |  |
//	  |            | cannot be    |  |  | dependency away, or all fail
//	  |            | decoded      |  |  +-----------> parked ---> probed, that is handled
//	  |            v    Permanent |  |                  |
//	  |          letter <---------+  | fails alone      | after a minute, or at the stop:
//	  |            |  | not stored   v                  | given back (basic.nack)
//	  |            |  +-----------> held                |
//	  |            v                 | after its delay: |
//	  |     dead-letter queue,       | rejected         |
//	  |     acknowledged             v (counts)         v
//	  +------------------------------+------------------+
//
// In metrics and logs: handled and dead-lettered messages count in
// messaging.client.consumed.messages, held ones in orderflow.consumer.retries,
// letters in orderflow.consumer.dead_letters; while messages are parked,
// orderflow.consumer.active is 0 and [Consumer.Ready] says why. Letters carry
// the headers x-dead-letter-*.
//
// # Failure handling
//
// A message cannot be decoded, has a foreign type, or its handler says
// [Permanent]: it goes to the dead-letter queue at once, with the reason in
// headers. That happens alongside the handling of others, and the message is not
// acknowledged before its letter is confirmed.
//
// A batch fails: each of its messages is handled alone, so that only those that
// fail themselves are concerned. Such a message is held for a delay that grows
// with its deliveries, then rejected. Over the queue's delivery limit the broker
// dead-letters it; 20 deliveries take seven minutes.
//
// A batch loses against concurrent work ([fault.Conflict]): again at once, a few
// times. It runs out of time ([fault.TooSlow]): in halves.
//
// A dependency is away ([fault.Unavailable], [fault.Unknown]): the consumer
// pauses, and the same batch is tried again. After a minute it gives its
// messages back, so that other replicas can have them and the broker's
// consumer timeout costs no delivery, and waits without any until what it
// requires ([Consumer.Require]) is there.
//
// Message after message fails and none succeeds: nothing is poisonous. A breaker
// opens, the consumer pauses and probes with single messages, and nothing is
// rejected for the first minute. It closes with the first success.
//
// The process dies, or is cut off: the broker counts a delivery of everything
// that was on its way, on any version. So a session starts with a single message
// and opens its window when that has had a result.
//
// The broker closes a channel, cancels a consumer because its queue is gone, or
// loses the connection: channels and connections are opened again forever, with
// backoff and jitter; Ready tells meanwhile, in the broker's words. A broker that
// says nothing is given up after 4.5 seconds, and no call waits for an answer
// longer than that without somebody who can end it. The client library's own
// recovery is off: it would race with ours, and it gives up.
//
// The broker has an alarm: it takes no messages on connections that publish.
// Consumers have connections that never do.
//
// The consumer stops: it takes no more, finishes what it has within
// [Config].DrainTimeout, and gives the rest back with basic.nack, which RabbitMQ
// 4.3 and later do not count as a failure.
//
// The bus declares nothing. Exchanges, queues and bindings exist already, and
// the broker users of the services could not declare any.
package bus
