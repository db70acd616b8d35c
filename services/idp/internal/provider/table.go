package provider

import (
	"errors"
	"time"
)

// errFull is what strangers get who fill the memory.
var errFull = errors.New("too many at once: try again in a minute")

// mostRows bounds each table: they are in memory, and anybody can begin to
// sign in.
const mostRows = 10_000

// table is values by key, each with an end. It is not for concurrent use.
type table[V any] map[string]row[V]

type row[V any] struct {
	value V
	until time.Time
}

func (t table[V]) put(key string, value V, until time.Time) error {
	if len(t) >= mostRows {
		t.sweep(time.Now())
	}
	if _, known := t[key]; !known && len(t) >= mostRows {
		return errFull
	}
	t[key] = row[V]{value, until}
	return nil
}

func (t table[V]) get(key string) (V, bool) {
	found, ok := t[key]
	if !ok || time.Now().After(found.until) {
		var none V
		return none, false
	}
	return found.value, true
}

func (t table[V]) sweep(now time.Time) {
	for key, row := range t {
		if now.After(row.until) {
			delete(t, key)
		}
	}
}
