package bus

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/google/uuid"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/propagation"
)

// Event is one message: the CloudEvents 1.0 attributes that travel as headers
// (binary content mode) and the JSON body, which is the event's data alone.
type Event struct {
	ID         uuid.UUID // CloudEvents id and AMQP message_id; UUIDv7
	Type       string    // CloudEvents type, e.g. orderflow.order.created.v1
	Source     string    // CloudEvents source: the service that emits it
	Subject    string    // CloudEvents subject and AMQP correlation_id: the order's id
	Time       time.Time // when it happened, UTC
	RoutingKey string
	Body       json.RawMessage
	// Trace holds traceparent, tracestate and baggage of the span that caused
	// the event; empty when there is none.
	Trace map[string]string
}

// NewEvent makes an event that happened now, caused by the span in ctx. The
// error is payload's: it cannot be written as JSON.
func NewEvent(ctx context.Context, source, eventType, routingKey, subject string, payload any) (Event, error) {
	body, err := json.Marshal(payload)
	if err != nil {
		return Event{}, fmt.Errorf("encode %s %s: %w", eventType, subject, err)
	}
	id, err := uuid.NewV7()
	if err != nil {
		return Event{}, fmt.Errorf("make an event id: %w", err)
	}
	trace := propagation.MapCarrier{}
	otel.GetTextMapPropagator().Inject(ctx, trace)
	return Event{
		ID:         id,
		Type:       eventType,
		Source:     source,
		Subject:    subject,
		Time:       time.Now().UTC(),
		RoutingKey: routingKey,
		Body:       body,
		Trace:      trace,
	}, nil
}

// Delivery is one received event with its decoded payload.
type Delivery[T any] struct {
	Event
	Payload T
	Queue   string
	Attempt int // failed tries before this one
	// Context carries this message's own process span. A batch has one
	// context and many messages: events that a message causes are made with
	// the message's, or their trace would be the batch's.
	Context context.Context
}
