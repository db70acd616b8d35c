package bus

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/propagation"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"

	"orderflow.internal/kit/telemetry"
)

// Spans and metrics follow OpenTelemetry's semantic conventions for messaging
// and for RabbitMQ (https://opentelemetry.io/docs/specs/semconv/messaging/rabbitmq/).
// Each order makes ten spans and a share of some more. A span has at most eight
// attributes when nothing fails: from the ninth on, the SDK, which looks for
// doubles among them, takes a quarter more memory.

const scope = "orderflow.internal/kit/bus"

// outboxWaitKey is the time in seconds between the creation of an event and its
// publishing.
const outboxWaitKey = attribute.Key("orderflow.outbox.wait")

// attemptKey counts the failed deliveries before this one, if there were any.
const attemptKey = attribute.Key("orderflow.delivery.attempt")

func tracer() trace.Tracer { return otel.Tracer(scope) }

// startPublishSpans starts a span for each message, child of what caused its
// event, which the message carries on to its consumers. It returns nil when
// nothing is recorded.
func startPublishSpans(messages []message, events []Event, now time.Time) []trace.Span {
	var spans []trace.Span
	t := tracer()
	propagator := otel.GetTextMapPropagator()
	for i, e := range events {
		m := &messages[i]
		parent := propagator.Extract(context.Background(), propagation.MapCarrier(e.Trace))
		name := spanName("publish", m.exchange, m.key, "")
		ctx, span := t.Start(parent, name, trace.WithSpanKind(trace.SpanKindProducer), trace.WithTimestamp(now))
		if !span.IsRecording() {
			continue // the event carries its cause's context on
		}
		if spans == nil {
			spans = make([]trace.Span, len(events))
		}
		span.SetAttributes(outboxWaitKey.Float64(max(0, now.Sub(e.Time).Seconds())))
		spans[i] = span
		m.carry(ctx, name)
	}
	return spans
}

// carry has the message carry on the context of its publishing, whose span name
// belongs to the span in ctx.
func (m *message) carry(ctx context.Context, name string) {
	trace.SpanFromContext(ctx).SetAttributes(
		semconv.MessagingSystemRabbitMQ,
		semconv.MessagingOperationName("publish"),
		semconv.MessagingOperationTypeSend,
		semconv.MessagingDestinationName(name[len("publish "):]),
		semconv.MessagingRabbitMQDestinationRoutingKey(m.key),
		semconv.MessagingMessageID(m.MessageId),
		semconv.MessagingMessageConversationID(m.CorrelationId),
	)
	for _, key := range traceHeaders[:2] { // baggage stays
		delete(m.Headers, key)
	}
	carrier := propagation.MapCarrier{}
	otel.GetTextMapPropagator().Inject(ctx, carrier)
	for key, value := range carrier {
		m.Headers[key] = value
	}
}

// spanName is an operation and its destination as the conventions for RabbitMQ
// put it together: exchange:key where a message is published,
// exchange:key:queue where it is consumed, without what is empty or said
// already, as with messages that were put into a queue by its name.
func spanName(operation, exchange, key, queue string) string {
	parts := slices.DeleteFunc([]string{exchange, key, queue}, func(part string) bool { return part == "" })
	return operation + " " + strings.Join(slices.Compact(parts), ":")
}

func endSpans(spans []trace.Span, errs []error) {
	for i, span := range spans {
		if span != nil {
			endSpan(span, errs[i])
		}
	}
}

func endSpan(span trace.Span, err error) {
	if err != nil {
		span.SetStatus(codes.Error, err.Error())
		span.SetAttributes(semconv.ErrorTypeKey.String(errorType(err)))
	}
	span.End()
}

// errorType is a word of low cardinality for metrics and spans.
func errorType(err error) string {
	var permanent *permanentError
	var refused *RefusedError
	switch {
	case err == nil:
		return ""
	case errors.Is(err, ErrUnroutable):
		return "unroutable"
	case errors.Is(err, errNegative):
		return "negative-confirm"
	case errors.As(err, &refused) && refused.Code == 0:
		return "unsendable"
	case errors.As(err, &refused):
		return "refused-" + strconv.Itoa(refused.Code)
	case errors.Is(err, ErrUnconfirmed):
		return "unconfirmed"
	case errors.As(err, &permanent):
		return "permanent"
	case errors.Is(err, context.DeadlineExceeded):
		return "timeout"
	case errors.Is(err, context.Canceled):
		return "canceled"
	default:
		return "other"
	}
}

// startProcess makes the span of handling one message: a child of the span
// that published it, whatever batch it is handled in.
func startProcess(r *received, queue string) {
	parent := otel.GetTextMapPropagator().Extract(context.Background(), propagation.MapCarrier(r.event.Trace))
	options := []trace.SpanStartOption{trace.WithSpanKind(trace.SpanKindConsumer)}
	if r.attempt > 0 {
		// A retry happens long after its cause: the link marks it as one.
		options = append(options, trace.WithLinks(trace.Link{
			SpanContext: trace.SpanContextFromContext(parent),
			Attributes:  []attribute.KeyValue{attemptKey.Int(r.attempt)},
		}))
	}
	name := spanName("process", r.Exchange, r.event.RoutingKey, queue)
	r.ctx, r.span = tracer().Start(parent, name, options...)
	if !r.span.IsRecording() {
		return
	}
	r.span.SetAttributes(
		semconv.MessagingSystemRabbitMQ,
		semconv.MessagingOperationName("process"),
		semconv.MessagingOperationTypeProcess,
		semconv.MessagingDestinationName(name[len("process "):]),
		semconv.MessagingRabbitMQDestinationRoutingKey(r.event.RoutingKey),
		semconv.MessagingRabbitMQMessageDeliveryTag(int(r.DeliveryTag)), //nolint:gosec // it counts from 1
		semconv.MessagingMessageID(r.event.ID.String()),
		semconv.MessagingMessageConversationID(r.event.Subject),
	)
	if r.attempt > 0 {
		r.span.SetAttributes(attemptKey.Int(r.attempt))
	}
}

// startBatch makes the span of a whole batch, which links to its messages'.
// It is a trace of its own: a batch has many causes. Without a message that is
// recorded there is none.
func startBatch(ctx context.Context, queue string, batch []*received) (context.Context, trace.Span) {
	var links []trace.Link
	for _, r := range batch {
		if !r.span.IsRecording() {
			continue
		}
		if links == nil {
			links = make([]trace.Link, 0, len(batch))
		}
		links = append(links, trace.Link{SpanContext: r.span.SpanContext()})
	}
	if links == nil {
		return ctx, trace.SpanFromContext(context.Background())
	}
	return tracer().Start(ctx, "process batch "+queue, trace.WithNewRoot(), trace.WithLinks(links...),
		trace.WithAttributes(
			semconv.MessagingSystemRabbitMQ,
			semconv.MessagingOperationName("process"),
			semconv.MessagingOperationTypeProcess,
			semconv.MessagingDestinationName(queue),
			semconv.MessagingBatchMessageCount(len(batch)),
		))
}

type instruments struct {
	publishDuration metric.Float64Histogram
	processDuration metric.Float64Histogram
	sent            metric.Int64Counter
	consumed        metric.Int64Counter
	lag             metric.Float64Histogram
	outboxWait      metric.Float64Histogram
	retried         metric.Int64Counter
	redelivered     metric.Int64Counter
	deadLettered    metric.Int64Counter
	batchSize       metric.Int64Histogram
}

// seconds are bucket bounds for durations from a fast publish to an outage.
var seconds = metric.WithExplicitBucketBoundaries(.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60)

var instrument = newInstruments(otel.Meter(scope))

func newInstruments(m metric.Meter) instruments {
	return instruments{
		publishDuration: telemetry.Made(m.Float64Histogram("messaging.client.operation.duration", seconds,
			metric.WithUnit("s"),
			metric.WithDescription("Time from sending a batch of messages to their confirms."))),
		processDuration: telemetry.Made(m.Float64Histogram("messaging.process.duration", seconds, metric.WithUnit("s"),
			metric.WithDescription("Time to handle a batch of messages, its transaction included."))),
		sent: telemetry.Made(m.Int64Counter("messaging.client.sent.messages", metric.WithUnit("{message}"),
			metric.WithDescription("Messages published, by outcome."))),
		consumed: telemetry.Made(m.Int64Counter("messaging.client.consumed.messages", metric.WithUnit("{message}"),
			metric.WithDescription("Messages handled, by outcome."))),
		lag: telemetry.Made(m.Float64Histogram("orderflow.consumer.lag", seconds, metric.WithUnit("s"),
			metric.WithDescription("Age of an event when its handling begins."))),
		outboxWait: telemetry.Made(m.Float64Histogram("orderflow.outbox.wait", seconds, metric.WithUnit("s"),
			metric.WithDescription("Time between the creation of an event and its publishing."))),
		retried: telemetry.Made(m.Int64Counter("orderflow.consumer.retries", metric.WithUnit("{message}"),
			metric.WithDescription("Failed deliveries that will be retried."))),
		redelivered: telemetry.Made(m.Int64Counter("orderflow.consumer.redeliveries", metric.WithUnit("{message}"),
			metric.WithDescription("Messages received that the broker has counted failed deliveries of."))),
		deadLettered: telemetry.Made(m.Int64Counter("orderflow.consumer.dead_letters", metric.WithUnit("{message}"),
			metric.WithDescription("Messages this consumer sent to a dead-letter queue."))),
		batchSize: telemetry.Made(m.Int64Histogram("orderflow.consumer.batch.size", metric.WithUnit("{message}"),
			metric.WithExplicitBucketBoundaries(1, 2, 4, 8, 16, 32, 64, 128, 256),
			metric.WithDescription("Messages handled in one transaction."))),
	}
}

func recordPublished(ctx context.Context, messages []message, events []Event, errs []error, started time.Time) {
	if len(messages) == 0 {
		return
	}
	took := time.Since(started)
	type outcome struct{ key, failure string }
	counts := make(map[outcome]int64, 2)
	for i := range messages {
		counts[outcome{messages[i].key, errorType(errs[i])}]++
	}
	exchange := semconv.MessagingDestinationName(messages[0].exchange)
	wait := metric.WithAttributeSet(attribute.NewSet(exchange))
	for i, e := range events {
		if errs[i] != nil {
			continue // it is still waiting
		}
		instrument.outboxWait.Record(ctx, max(0, started.Sub(e.Time).Seconds()), wait)
	}
	for o, n := range counts {
		attrs := []attribute.KeyValue{
			semconv.MessagingSystemRabbitMQ,
			semconv.MessagingOperationName("publish"),
			exchange,
			semconv.MessagingRabbitMQDestinationRoutingKey(o.key),
		}
		if o.failure != "" {
			attrs = append(attrs, semconv.ErrorTypeKey.String(o.failure))
		}
		set := metric.WithAttributeSet(attribute.NewSet(attrs...))
		instrument.sent.Add(ctx, n, set)
		instrument.publishDuration.Record(ctx, took.Seconds(), set)
	}
}

// queueAttributes are a queue's metric attributes, made once.
type queueAttributes struct {
	handled, failed, deadLettered, retrying, queue metric.MeasurementOption
}

func newQueueAttributes(queue string) queueAttributes {
	base := []attribute.KeyValue{semconv.MessagingSystemRabbitMQ, semconv.MessagingOperationName("process"),
		semconv.MessagingDestinationName(queue)}
	with := func(more ...attribute.KeyValue) metric.MeasurementOption {
		return metric.WithAttributeSet(attribute.NewSet(append(more, base...)...))
	}
	return queueAttributes{
		handled:      with(),
		failed:       with(semconv.ErrorTypeKey.String("handler")),
		queue:        metric.WithAttributeSet(attribute.NewSet(semconv.MessagingDestinationName(queue))),
		deadLettered: with(semconv.ErrorTypeKey.String("dead-lettered")),
		retrying:     with(semconv.ErrorTypeKey.String("retried")),
	}
}

func (q queueAttributes) recordHandled(ctx context.Context, batch []*received, started time.Time, err error) {
	outcome := q.handled
	if err != nil {
		outcome = q.failed
	}
	instrument.processDuration.Record(ctx, time.Since(started).Seconds(), outcome)
	instrument.batchSize.Record(ctx, int64(len(batch)), q.queue)
	for _, r := range batch {
		instrument.lag.Record(r.ctx, max(0, started.Sub(r.event.Time).Seconds()), q.queue)
	}
}

func (q queueAttributes) recordRedelivered(ctx context.Context, messages int) {
	if messages > 0 {
		instrument.redelivered.Add(ctx, int64(messages), q.queue)
	}
}
