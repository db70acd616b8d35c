package bus

import (
	"testing"

	"github.com/google/uuid"
	amqp "github.com/rabbitmq/amqp091-go"
)

// FuzzEnvelope looks for headers that make the reader panic, or accept an
// event that cannot be told from others.
func FuzzEnvelope(f *testing.F) {
	f.Add("1.0", "0197f2a0-0000-7000-8000-000000000001", "orders", "t.v1", "2026-01-02T03:04:05Z", "s",
		"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", int64(3))
	f.Add("", "", "", "", "", "", "", int64(0))
	f.Add("1.0", "x", "orders", "t.v1", "yesterday", "s", "", int64(-1))
	f.Fuzz(func(t *testing.T, version, id, source, typ, at, subject, traceparent string, count int64) {
		d := amqp.Delivery{Headers: amqp.Table{
			headerSpecVersion: version, headerID: id, headerSource: source, headerType: typ, headerTime: at,
			headerSubject: subject, "traceparent": traceparent, headerDeliveryCount: count,
		}, Body: []byte("{}")}
		e, err := fromDelivery(&d)
		if err != nil {
			return
		}
		if e.ID == uuid.Nil && id != uuid.Nil.String() && len(id) < 32 {
			t.Errorf("id %q was read as the zero id", id)
		}
		if e.Type == "" || e.Source == "" {
			t.Errorf("accepted an event without type or source: %+v", e)
		}
		again := toPublishing(e)
		if again.MessageId != e.ID.String() || again.Headers[headerType] != typ {
			t.Errorf("does not survive a round trip: %+v", again)
		}
		if attempt(&d) != int(count) {
			t.Errorf("attempt is %d, want %d", attempt(&d), count)
		}
	})
}
