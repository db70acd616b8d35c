// Package letter is what a dead letter is and what may become of it. It does no
// I/O.
package letter

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"

	"orderflow.internal/kit/bus"
)

// State is what has become of a letter.
type State string

// States of a letter. One that died again is Waiting again.
const (
	Waiting   State = "waiting"   // nobody has done anything about it
	Redriving State = "redriving" // it is, or may be, back in its queue
	Handled   State = "handled"   // reported by its consumer
	Unknown   State = "unknown"   // nothing was heard of it for long
	Discarded State = "discarded"
)

// States are all of them.
var States = []State{Waiting, Redriving, Handled, Unknown, Discarded}

// ErrNotFound means that there is no such letter, group or redrive.
var ErrNotFound = errors.New("not found")

// Letter is a message that no consumer could handle.
type Letter struct {
	ID      int64       `json:"letterId"`
	GroupID int64       `json:"groupId"`
	Queue   string      `json:"queue"` // it died in
	Message bus.Message `json:"-"`

	// Fingerprint is the same when the broker delivers the letter again, and no
	// other letter's: it covers the message, and when and how it died. Identical
	// copies of a message that died in the same second, which the broker's own
	// dead-lettering does not tell apart, are one letter, and so are identical
	// copies put into a dead-letter queue by hand, which say no time. That loses
	// nothing: handlers are idempotent, so handling one copy has the effect of
	// handling all, and no consumer takes a message without an event id.
	Fingerprint [sha256.Size]byte `json:"-"`

	Reason   string    `json:"reason"`
	Error    string    `json:"error"`
	Attempts *int      `json:"attempts"` // failed deliveries before it died; nil when nobody has said
	DiedAt   time.Time `json:"lastDiedAt"`

	MessageID string     `json:"messageId"`
	Type      string     `json:"type"`
	OrderID   *uuid.UUID `json:"orderId"`
	TraceID   string     `json:"traceId"`

	// Attempt is set when it died in a redrive's try.
	Attempt *uuid.UUID `json:"-"`

	State       State      `json:"state"`
	Deaths      int        `json:"deaths"`
	FirstDiedAt time.Time  `json:"firstDiedAt"`
	StoredAt    time.Time  `json:"storedAt"`
	RedriveID   *uuid.UUID `json:"redriveId"`
	BodyBytes   int64      `json:"bodyBytes"`
}

// maxReason is in bytes. What we and brokers give as a reason is a word or two;
// groups are found by it, and an index takes no long text.
const maxReason = 100

// Read makes a letter of a message that was found in the dead-letter queue of
// queue. It takes any message there is. now is when it died if the message does
// not say.
func Read(queue string, m bus.Message, now time.Time) Letter {
	l := Letter{
		Queue:       queue,
		Message:     m,
		Fingerprint: fingerprint(queue, &m),
		MessageID:   m.Property("message-id"),
		Type:        cmp.Or(m.Text("cloudEvents_type"), m.Property("type")),
		OrderID:     parseID(cmp.Or(m.Text("cloudEvents_subject"), m.Property("correlation-id"))),
		Attempt:     parseID(m.Text(bus.HeaderAttempt)),
		TraceID:     traceID(m.Text("traceparent")),
		BodyBytes:   int64(len(m.Body)),
		DiedAt:      now,
	}
	if reason := m.Text(bus.HeaderDeadLetterReason); reason != "" {
		l.Reason, l.Error = reason, m.Text(bus.HeaderDeadLetterError)
		if at, err := time.Parse(time.RFC3339Nano, m.Text(bus.HeaderDeadLetterTime)); err == nil {
			l.DiedAt = at
		}
		if tries, ok := integer(m.Headers, bus.HeaderDeadLetterTries); ok {
			l.Attempts = &tries
		}
	} else if death := lastDeath(&m, queue); death != nil {
		l.Reason = strings.ReplaceAll(bus.Find(death, "reason").Value, "_", "-")
		if at, err := time.Parse(time.RFC3339, bus.Find(death, "time").Value); err == nil {
			l.DiedAt = at
		}
	}
	l.Reason = shorten(l.Reason, maxReason)
	// A clock that is wrong must not make a time that nothing can hold, nor one to come.
	if l.DiedAt.After(now) || l.DiedAt.Year() < 2000 {
		l.DiedAt = now
	}
	l.State, l.Deaths, l.FirstDiedAt = Waiting, 1, l.DiedAt
	return l
}

// lastDeath is what the broker has noted of the message's death in queue: an
// entry of x-death, which it puts in front.
func lastDeath(m *bus.Message, queue string) []bus.Field {
	for _, entry := range bus.Find(m.Headers, "x-death").Items {
		if entry.Type == "table" && bus.Find(entry.Items, "queue").Value == queue {
			return entry.Items
		}
	}
	return nil
}

func integer(fields []bus.Field, name string) (int, bool) {
	n, err := strconv.ParseInt(bus.Find(fields, name).Value, 10, 32)
	return int(n), err == nil && n >= 0
}

func parseID(text string) *uuid.UUID {
	id, err := uuid.Parse(text)
	if err != nil || id == uuid.Nil {
		return nil
	}
	return &id
}

// traceID is the trace of a traceparent, "" when there is none.
func traceID(parent string) string {
	parts := strings.Split(parent, "-")
	if len(parts) < 4 || len(parts[1]) != 32 || strings.Trim(parts[1], "0123456789abcdef") != "" {
		return ""
	}
	return parts[1]
}

// fingerprint covers all of a message that does not change while it lies in the
// dead-letter queue.
func fingerprint(queue string, m *bus.Message) [sha256.Size]byte {
	hash := sha256.New()
	part := func(b []byte) {
		var length [8]byte
		binary.BigEndian.PutUint64(length[:], uint64(len(b)))
		hash.Write(length[:])
		hash.Write(b)
	}
	lasting := slices.DeleteFunc(slices.Clone(m.Headers), func(f bus.Field) bool {
		return f.Name == "x-delivery-count" || f.Name == "x-acquired-count"
	})
	for _, fields := range [][]bus.Field{lasting, m.Properties} {
		text, err := json.Marshal(fields)
		if err != nil {
			panic(err) // fields are strings
		}
		part(text)
	}
	part([]byte(queue))
	part(m.Body)
	return [sha256.Size]byte(hash.Sum(nil))
}
