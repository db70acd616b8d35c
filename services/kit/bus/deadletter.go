package bus

import (
	"context"
	"fmt"
	"maps"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

// Headers that a consumer adds to a message it dead-letters. What the broker
// dead-letters by itself, over the delivery limit, has x-first-death-reason.
const (
	HeaderDeadLetterReason = "x-dead-letter-reason" // one of the Reason constants
	HeaderDeadLetterError  = "x-dead-letter-error"  // what exactly was wrong
	HeaderDeadLetterQueue  = "x-dead-letter-queue"  // where it was consumed
	HeaderDeadLetterTime   = "x-dead-letter-time"   // when, RFC 3339
)

// Reasons for dead-lettering a message without another try.
const (
	ReasonMalformedEnvelope = "malformed-envelope"
	ReasonUnknownType       = "unknown-type"
	ReasonMalformedBody     = "malformed-body"
	ReasonPermanent         = "permanent-failure"
)

type deadLetter struct {
	*received
	reason string
	err    error
}

// deadLetter publishes the messages to the dead-letter exchange, with their
// queue's name as routing key, and waits for the confirms. Until it returns
// nil the originals must not be acknowledged: better twice than not at all.
//
// It uses a connection of its own. The consumer's must not publish, or an
// alarm of the broker would block its acknowledgements too, and one that is
// kept open for what should never happen would be a waste.
func (c *Consumer) deadLetter(ctx context.Context, queue string, letters []deadLetter) error {
	conn, err := c.cfg.dial(ctx, c.name+" dead letters")
	if err != nil {
		return fmt.Errorf("dead-letter: %w", err)
	}
	defer conn.close(time.Second) //nolint:errcheck // all is confirmed, or will be sent again
	ch, err := conn.Channel()
	if err != nil {
		return fmt.Errorf("dead-letter: %w", err)
	}
	if err := ch.Confirm(false); err != nil {
		return fmt.Errorf("dead-letter: %w", err)
	}
	returns := ch.NotifyReturn(make(chan amqp.Return, len(letters)))
	confirms := make([]*amqp.DeferredConfirmation, len(letters))
	for i, l := range letters {
		confirms[i], err = ch.PublishWithDeferredConfirm(c.deadLetterExchange, queue, true, false, l.publishing(queue))
		if err != nil {
			return fmt.Errorf("dead-letter: %w", err)
		}
	}
	ctx, cancel := context.WithTimeout(ctx, c.cfg.ConfirmTimeout)
	defer cancel()
	for _, confirm := range confirms {
		acked, err := confirm.WaitContext(ctx)
		if err != nil {
			return fmt.Errorf("dead-letter: %w", err)
		}
		if !acked {
			return fmt.Errorf("dead-letter: %w", errUnconfirmed)
		}
	}
	if len(returns) > 0 {
		return fmt.Errorf("dead-letter %s to %s: %w", queue, c.deadLetterExchange, ErrUnroutable)
	}
	return nil
}

// publishing is the message as it came, with the reason added.
func (l deadLetter) publishing(queue string) amqp.Publishing {
	headers := make(amqp.Table, len(l.Headers)+4)
	maps.Copy(headers, l.Headers)
	delete(headers, headerDeliveryCount)
	headers[HeaderDeadLetterReason] = l.reason
	headers[HeaderDeadLetterError] = l.err.Error()
	headers[HeaderDeadLetterQueue] = queue
	headers[HeaderDeadLetterTime] = time.Now().UTC().Format(time.RFC3339Nano)
	return amqp.Publishing{
		Headers:         headers,
		ContentType:     l.ContentType,
		ContentEncoding: l.ContentEncoding,
		DeliveryMode:    amqp.Persistent,
		CorrelationId:   l.CorrelationId,
		MessageId:       l.MessageId,
		Timestamp:       l.Timestamp,
		Type:            l.Type,
		AppId:           l.AppId,
		Body:            l.Body,
	}
}
