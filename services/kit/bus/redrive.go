package bus

import (
	"context"
	"strings"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
)

// Headers of a message that was dead-lettered and is given to its queue again.
// Whoever handles it reports the attempt, see [ReportKey]; if it is dead-lettered
// once more, its letter has them too.
const (
	HeaderRedrive = "x-redrive-id"      // the redrive that it is part of
	HeaderAttempt = "x-redrive-attempt" // this one try of one letter
)

// ReportKey is the routing key, on the dead-letter exchange, of reports: messages
// without a body that carry the headers of a redriven message which was handled,
// and whose handler's effect is committed. The message is acknowledged once its
// report is confirmed, or refused because nobody wants any.
const ReportKey = "redrive.reports"

// Redriven is a dead letter on its way back to the queue it died in.
type Redriven struct {
	Queue            string
	Message          Message
	Redrive, Attempt string
}

// Redrive publishes letters to their queues, as new messages with the same
// content: the broker counts their deliveries from zero. The result is as that of
// Publish. Whatever has a span gets a trace of its own, which links to the letter's
// first life.
func (p *Publisher) Redrive(ctx context.Context, letters []Redriven) []error {
	started := time.Now()
	errs := make([]error, len(letters))
	messages := make([]message, 0, len(letters))
	sent := make([]int, 0, len(letters))
	spans := make([]trace.Span, 0, len(letters))
	for i, l := range letters {
		publishing, err := l.publishing()
		if err != nil {
			errs[i] = &RefusedError{Reason: err.Error()}
			continue
		}
		m := message{exchange: p.redelivery, key: l.Queue, mandatory: true, Publishing: publishing}
		spans = append(spans, startRedriveSpan(&m, started))
		messages, sent = append(messages, m), append(sent, i)
	}
	outcomes := make([]error, len(messages))
	p.pipe.publish(ctx, messages, outcomes)
	endSpans(spans, outcomes)
	recordPublished(ctx, messages, nil, outcomes, started)
	for i, err := range outcomes {
		errs[sent[i]] = err
	}
	return errs
}

// publishing is the message as it was in its first life: without what its death
// has added, and with the names of the redrive and the attempt.
func (l *Redriven) publishing() (amqp.Publishing, error) {
	p, err := l.Message.publishing()
	if err != nil {
		return p, err
	}
	for name := range p.Headers {
		if isPostMortem(name) {
			delete(p.Headers, name)
		}
	}
	p.Headers[HeaderRedrive], p.Headers[HeaderAttempt] = l.Redrive, l.Attempt
	return p, nil
}

// isPostMortem tells headers that death adds to a message.
func isPostMortem(name string) bool {
	switch name {
	case "x-death", headerDeliveryCount, "x-acquired-count", HeaderRedrive, HeaderAttempt:
		return true
	}
	return strings.HasPrefix(name, "x-dead-letter-") || strings.HasPrefix(name, "x-first-death-") ||
		strings.HasPrefix(name, "x-last-death-")
}

// startRedriveSpan starts the span of a redriven message, which the message
// carries on to its consumer.
func startRedriveSpan(m *message, now time.Time) trace.Span {
	propagator := otel.GetTextMapPropagator()
	first := propagation.MapCarrier{}
	for _, key := range traceHeaders {
		if value, ok := m.Headers[key].(string); ok {
			first[key] = value
		}
	}
	options := []trace.SpanStartOption{trace.WithSpanKind(trace.SpanKindProducer), trace.WithTimestamp(now),
		trace.WithNewRoot()}
	if life := trace.SpanContextFromContext(propagator.Extract(context.Background(), first)); life.IsValid() {
		options = append(options, trace.WithLinks(trace.Link{SpanContext: life}))
	}
	name := spanName("publish", m.exchange, m.key, "")
	ctx, span := tracer().Start(context.Background(), name, options...)
	if span.IsRecording() { // else the message stays in the trace of its first life
		m.carry(ctx, name)
	}
	return span
}

// isRedriven tells that a report of the message's handling is wanted.
func (r *received) isRedriven() bool { return text(&r.Delivery, HeaderAttempt) != "" }

// reporting is the report that a redriven message was handled.
func (d *deadLetter) reporting() amqp.Publishing {
	headers := amqp.Table{HeaderDeadLetterQueue: d.queue}
	for _, name := range []string{HeaderRedrive, HeaderAttempt} {
		headers[name] = d.Headers[name]
	}
	return amqp.Publishing{Headers: headers, DeliveryMode: amqp.Persistent, MessageId: text(&d.Delivery, HeaderAttempt),
		Timestamp: time.Now()}
}
