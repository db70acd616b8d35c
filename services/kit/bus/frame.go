package bus

import (
	"errors"
	"fmt"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

// maxShortString is the most bytes that AMQP allows in a short string: routing
// keys, names of headers and all properties but the headers' values.
const maxShortString = 255

// brokerRoom is what we leave of a header frame, in bytes: the broker adds
// headers of its own when it delivers again or dead-letters, and a consumer
// whose connection cannot take the frame would lose it each time.
const brokerRoom = 2 << 10

// fits says why a message cannot be sent at all, nil if it can. The client
// library does not look: it would send a frame over the agreed size, and write
// half a message before it notices a string that is too long. Either way the
// whole connection is lost, and every other message on it has an unknown
// outcome.
func (m *message) fits(frameSize int) error {
	size, err := m.headerFrame()
	if err == nil && frameSize > 0 && size+brokerRoom > frameSize {
		err = fmt.Errorf("headers of %d bytes: the broker's frames have room for %d", size, frameSize-brokerRoom)
	}
	return err
}

// headerFrame is the size of the frame with the message's properties, in
// bytes: AMQP 0-9-1, sections 2.3.5 and 2.3.5.2. All properties are counted as
// if they were there, and the exchange and the routing key as if they were
// among them.
func (m *message) headerFrame() (int, error) {
	const (
		frame   = 8             // type, channel, size and end
		content = 2 + 2 + 8 + 2 // class, weight, body size and flags
		rest    = 1 + 1 + 8 + 3 // delivery mode, priority, timestamp, and three empty strings we do not set
	)
	size := frame + content + rest
	for _, property := range [...]struct{ name, value string }{
		{"exchange", m.exchange}, {"routing key", m.key}, {"content type", m.ContentType},
		{"content encoding", m.ContentEncoding},
		{"correlation id", m.CorrelationId}, {"message id", m.MessageId}, {"type", m.Type}, {"app id", m.AppId},
	} {
		if len(property.value) > maxShortString {
			return 0, fmt.Errorf("%s of %d bytes: AMQP allows %d", property.name, len(property.value), maxShortString)
		}
		size += 1 + len(property.value)
	}
	headers, err := tableSize(m.Headers)
	return size + headers, err
}

func tableSize(t amqp.Table) (int, error) {
	size := 4
	for name, value := range t {
		if len(name) > maxShortString {
			return 0, fmt.Errorf("header name of %d bytes: AMQP allows %d", len(name), maxShortString)
		}
		field, err := fieldSize(value)
		if err != nil {
			return 0, err
		}
		size += 1 + len(name) + field
	}
	return size, nil
}

func fieldSize(value any) (int, error) {
	switch v := value.(type) {
	case nil:
		return 1, nil
	case string:
		return 5 + len(v), nil
	case []byte:
		return 5 + len(v), nil
	case amqp.Table:
		size, err := tableSize(v)
		return 1 + size, err
	case []any:
		size := 5
		for _, item := range v {
			field, err := fieldSize(item)
			if err != nil {
				return 0, err
			}
			size += field
		}
		return size, nil
	case bool, int8, byte, int16, uint16, int, int32, uint32, int64, float32, float64, amqp.Decimal, time.Time:
		return 9, nil // the largest of them
	}
	return 0, errors.New("a header has a type that AMQP does not know")
}
