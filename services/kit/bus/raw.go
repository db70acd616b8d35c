package bus

import (
	"context"
	"encoding/base64"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/google/uuid"
	amqp "github.com/rabbitmq/amqp091-go"
)

// Message is a message as the broker has it, whoever made it: nothing of it has
// to be an event. It can be kept as JSON and published again as it was.
type Message struct {
	Headers    []Field // in the order of their names
	Properties []Field // those that are set
	Body       []byte
}

// Field is a header or a property. Nothing is lost in it: Type is the AMQP type,
// and text that JSON or PostgreSQL cannot hold is in base64, after "base64:".
type Field struct {
	Name  string  `json:"name,omitempty"` // none in an array
	Type  string  `json:"type"`
	Value string  `json:"value,omitempty"`
	Items []Field `json:"items,omitempty"` // of an array or a table
}

// Find returns the field of that name, the zero Field when there is none.
func Find(fields []Field, name string) Field {
	i := slices.IndexFunc(fields, func(f Field) bool { return f.Name == name })
	if i < 0 {
		return Field{}
	}
	return fields[i]
}

// Text returns the header of that name if it is a string, else "".
func (m *Message) Text(header string) string {
	if f := Find(m.Headers, header); f.Type == "string" {
		return f.Value
	}
	return ""
}

// Property returns the property of that name, "" when it is not set.
func (m *Message) Property(name string) string { return Find(m.Properties, name).Value }

// SubscribeRaw makes a subscription that takes every message as it is, in the
// queue's order, and dead-letters none. Its window is open from the beginning: the
// queue's delivery limit has to be no concern. handle is told like that of [Subscribe] what its errors
// mean, but for Permanent, which is none of its business.
func SubscribeRaw(queue string, handle func(ctx context.Context, batch []Message) error) Subscription {
	return Subscription{
		queue: queue,
		raw:   true,
		handle: func(ctx context.Context, batch []*received) error {
			messages := make([]Message, len(batch))
			for i, r := range batch {
				messages[i] = toMessage(&r.Delivery)
			}
			return handle(ctx, messages)
		},
	}
}

// readRaw takes a delivery for what it is. It gets an id of its own: two
// messages may have the same or none, and none of them is left out.
func readRaw(d amqp.Delivery) *received {
	return &received{Delivery: d, attempt: attempt(&d),
		event: Event{ID: uuid.New(), RoutingKey: d.RoutingKey, Time: time.Now()}}
}

func toMessage(d *amqp.Delivery) Message {
	m := Message{Headers: toFields(d.Headers), Body: d.Body}
	for _, p := range []struct{ name, value string }{
		{"app-id", d.AppId}, {"content-encoding", d.ContentEncoding}, {"content-type", d.ContentType},
		{"correlation-id", d.CorrelationId}, {"expiration", d.Expiration}, {"message-id", d.MessageId},
		{"reply-to", d.ReplyTo}, {"type", d.Type}, {"user-id", d.UserId},
	} {
		if p.value != "" {
			m.Properties = append(m.Properties, Field{Name: p.name, Type: "string", Value: toText(p.value)})
		}
	}
	if d.Priority > 0 {
		m.Properties = append(m.Properties, toField("priority", d.Priority))
	}
	if !d.Timestamp.IsZero() {
		m.Properties = append(m.Properties, toField("timestamp", d.Timestamp))
	}
	return m
}

// publishing is the message as it was, but for what would not let it be: a time
// to live, which is over, and the name of the user who published it, which the
// broker allows that one alone.
func (m *Message) publishing() (amqp.Publishing, error) {
	p := amqp.Publishing{DeliveryMode: amqp.Persistent, Body: m.Body}
	var err error
	if p.Headers, err = toTable(m.Headers); err != nil {
		return p, err
	}
	for name, to := range map[string]*string{
		"app-id": &p.AppId, "content-encoding": &p.ContentEncoding, "content-type": &p.ContentType,
		"correlation-id": &p.CorrelationId, "message-id": &p.MessageId, "reply-to": &p.ReplyTo, "type": &p.Type,
	} {
		if *to, err = fromText(m.Property(name)); err != nil {
			return p, fmt.Errorf("property %s: %w", name, err)
		}
	}
	for _, f := range m.Properties {
		value, err := fromField(f)
		if err != nil {
			return p, fmt.Errorf("property %s: %w", f.Name, err)
		}
		switch v := value.(type) {
		case byte:
			p.Priority = v
		case time.Time:
			p.Timestamp = v
		}
	}
	return p, nil
}

func toFields(t amqp.Table) []Field {
	fields := make([]Field, 0, len(t))
	for name, value := range t {
		fields = append(fields, toField(name, value))
	}
	slices.SortFunc(fields, func(a, b Field) int { return strings.Compare(a.Name, b.Name) })
	return fields
}

func toTable(fields []Field) (amqp.Table, error) {
	t := make(amqp.Table, len(fields))
	for _, f := range fields {
		name, err := fromText(f.Name)
		if err != nil {
			return nil, fmt.Errorf("name of a header: %w", err)
		}
		if t[name], err = fromField(f); err != nil {
			return nil, fmt.Errorf("header %s: %w", f.Name, err)
		}
	}
	return t, nil
}

// toField writes what the client library reads from the wire.
func toField(name string, value any) Field {
	f := Field{Name: toText(name)}
	switch v := value.(type) {
	case nil:
		f.Type = "void"
	case bool, byte, int8, int16, uint16, int32, uint32, int64, float32, float64:
		f.Type, f.Value = fmt.Sprintf("%T", v), fmt.Sprint(v)
	case amqp.Decimal:
		f.Type, f.Value = "decimal", fmt.Sprintf("%de-%d", v.Value, v.Scale)
	case string:
		f.Type, f.Value = "string", toText(v)
	case []byte:
		f.Type, f.Value = "bytes", encodedText+base64.StdEncoding.EncodeToString(v)
	case time.Time:
		f.Type, f.Value = "timestamp", v.UTC().Format(time.RFC3339)
	case amqp.Table:
		f.Type, f.Items = "table", toFields(v)
	case []any:
		f.Type = "array"
		for _, item := range v {
			f.Items = append(f.Items, toField("", item))
		}
	default: // the library reads no other
		f.Type, f.Value = "string", toText(fmt.Sprint(v))
	}
	return f
}

// scalars are values of the types that fmt both writes and reads.
var scalars = map[string]any{
	"bool": false, "uint8": byte(0), "int8": int8(0), "int16": int16(0), "uint16": uint16(0), "int32": int32(0),
	"uint32": uint32(0), "int64": int64(0), "float32": float32(0), "float64": float64(0),
}

func fromField(f Field) (any, error) {
	if scalar, ok := scalars[f.Type]; ok {
		value := reflect.New(reflect.TypeOf(scalar))
		_, err := fmt.Sscan(f.Value, value.Interface())
		return value.Elem().Interface(), err
	}
	switch f.Type {
	case "void":
		return nil, nil
	case "decimal":
		var d amqp.Decimal
		_, err := fmt.Sscanf(f.Value, "%de-%d", &d.Value, &d.Scale)
		return d, err
	case "string":
		return fromText(f.Value)
	case "bytes":
		text, err := fromText(f.Value)
		return []byte(text), err
	case "timestamp":
		return time.Parse(time.RFC3339, f.Value)
	case "table":
		return toTable(f.Items)
	case "array":
		items := make([]any, len(f.Items))
		for i, item := range f.Items {
			var err error
			if items[i], err = fromField(item); err != nil {
				return nil, err
			}
		}
		return items, nil
	}
	return nil, fmt.Errorf("%q is no type of a header", f.Type)
}

const encodedText = "base64:"

// toText makes text of any bytes.
func toText(s string) string {
	if utf8.ValidString(s) && !strings.ContainsRune(s, 0) && !strings.HasPrefix(s, encodedText) {
		return s
	}
	return encodedText + base64.StdEncoding.EncodeToString([]byte(s))
}

func fromText(s string) (string, error) {
	encoded, is := strings.CutPrefix(s, encodedText)
	if !is {
		return s, nil
	}
	b, err := base64.StdEncoding.DecodeString(encoded)
	return string(b), err
}
