package bus

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	amqp "github.com/rabbitmq/amqp091-go"
)

// The envelope: CloudEvents 1.0 in binary mode
// (https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/bindings/amqp-protocol-binding.md),
// with the prefix that the binding names for brokers that do not allow a colon.
const (
	headerSpecVersion = "cloudEvents_specversion"
	headerID          = "cloudEvents_id"
	headerSource      = "cloudEvents_source"
	headerType        = "cloudEvents_type"
	headerTime        = "cloudEvents_time"
	headerSubject     = "cloudEvents_subject"

	// headerDeliveryCount is how often a quorum queue has delivered the
	// message in vain; the first delivery has none.
	headerDeliveryCount = "x-delivery-count"
)

var traceHeaders = [...]string{"traceparent", "tracestate", "baggage"}

func toPublishing(e Event) amqp.Publishing {
	id := e.ID.String()
	headers := make(amqp.Table, 9)
	headers[headerSpecVersion] = "1.0"
	headers[headerID] = id
	headers[headerSource] = e.Source
	headers[headerType] = e.Type
	headers[headerTime] = e.Time.UTC().Format(time.RFC3339Nano)
	headers[headerSubject] = e.Subject
	for key, value := range e.Trace {
		headers[key] = value
	}
	return amqp.Publishing{
		Headers:       headers,
		ContentType:   "application/json",
		DeliveryMode:  amqp.Persistent,
		MessageId:     id,
		CorrelationId: e.Subject,
		Type:          e.Type,
		AppId:         e.Source,
		Timestamp:     e.Time,
		Body:          e.Body,
	}
}

// fromDelivery reads the envelope. The error names the attribute that is
// missing or wrong.
func fromDelivery(d *amqp.Delivery) (Event, error) {
	e := Event{RoutingKey: d.RoutingKey, Body: json.RawMessage(d.Body)}
	if version := text(d, headerSpecVersion); version != "1.0" {
		return e, fmt.Errorf("%s: is %q, must be \"1.0\"", headerSpecVersion, version)
	}
	id, err := uuid.Parse(text(d, headerID))
	if err != nil {
		return e, fmt.Errorf("%s: must be a UUID", headerID)
	}
	e.ID = id
	e.Type = text(d, headerType)
	if e.Type == "" {
		return e, errors.New(headerType + ": is missing")
	}
	e.Source = text(d, headerSource)
	if e.Source == "" {
		return e, errors.New(headerSource + ": is missing")
	}
	e.Subject = text(d, headerSubject)
	if value := text(d, headerTime); value != "" {
		if e.Time, err = time.Parse(time.RFC3339, value); err != nil {
			return e, fmt.Errorf("%s: must be an RFC 3339 time", headerTime)
		}
	}
	for _, key := range traceHeaders {
		if value := text(d, key); value != "" {
			if e.Trace == nil {
				e.Trace = make(map[string]string, len(traceHeaders))
			}
			e.Trace[key] = value
		}
	}
	return e, nil
}

func text(d *amqp.Delivery, header string) string {
	s, _ := d.Headers[header].(string) // another type reads as missing
	return s
}

// attempt is how many deliveries of the message failed before this one.
func attempt(d *amqp.Delivery) int {
	switch n := d.Headers[headerDeliveryCount].(type) {
	case int64:
		return int(n)
	case int32:
		return int(n)
	case int16:
		return int(n)
	case int8:
		return int(n)
	case uint8:
		return int(n)
	}
	return 0
}
