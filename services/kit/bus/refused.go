package bus

import (
	"errors"
	"fmt"

	amqp "github.com/rabbitmq/amqp091-go"
)

var (
	// ErrRefused means that the broker does not take this event, as every
	// RefusedError says. Its outcome is known: try it again later, or repair
	// what the broker complains of, but let nothing wait for it.
	ErrRefused = errors.New("refused by the broker")

	// ErrUnroutable is the refusal of an event that no queue is bound for: the
	// topology is not there, or not yet.
	ErrUnroutable = errors.New("no queue takes this event")
)

// RefusedError is the refusal of one event. It is ErrRefused, and ErrUnroutable
// when its code says so.
//
// A refused event is in none of its queues, with one exception: after a
// negative confirm it may be in those that did not refuse it.
type RefusedError struct {
	Code   int    // AMQP reply code, e.g. 312 or 403; 0 for a negative confirm, or when we did not even send it
	Reason string // in the broker's own words where it had any
}

// Error begins with the code, if there is one: "403 ACCESS_REFUSED - ...".
func (e *RefusedError) Error() string {
	if e.Code == 0 {
		return e.Reason
	}
	return fmt.Sprintf("%d %s", e.Code, e.Reason)
}

// Is makes errors.Is work with ErrRefused and ErrUnroutable.
func (e *RefusedError) Is(target error) bool {
	return target == ErrRefused || (target == ErrUnroutable && e.Code == amqp.NoRoute)
}

// errNegative is the refusal without a reason that a negative confirm is.
var errNegative = &RefusedError{Reason: "negative confirm: a queue is full, or cannot be reached"}
