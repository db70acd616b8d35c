package past

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/google/uuid"
)

func newGenerator(end time.Time) *generator {
	g := &generator{Rand: rand.New(rand.NewPCG(1, 2)), end: end}
	for range 10 {
		g.products = append(g.products, product{id: g.uuidAt(end), cents: 100 + g.Int64N(1000)})
		g.customers = append(g.customers, g.uuidAt(end))
	}
	return g
}

// What an order lived through is in sequence, ended before now, and every fate is met.
func TestOrdersOfThePastHaveEnded(t *testing.T) {
	t.Parallel()
	end := time.Date(2026, 11, 5, 12, 0, 0, 0, time.UTC)
	g := newGenerator(end)
	fates := map[fate]int{}
	ids := map[uuid.UUID]bool{}
	for range 20_000 {
		created := end.Add(-settled - time.Duration(g.Int64N(int64(48*time.Hour))))
		p := g.order(created)
		fates[p.fate]++
		if ids[p.id] || p.id.Version() != 7 || p.id.Variant() != uuid.RFC4122 {
			t.Fatalf("id %s", p.id)
		}
		ids[p.id] = true
		seconds, nanoseconds := p.id.Time().UnixTime()
		if got := time.Unix(seconds, nanoseconds); !got.Equal(p.created.Truncate(time.Millisecond)) {
			t.Fatalf("the id says %s, created %s", got, p.created)
		}
		if len(p.items) == 0 || p.created.Before(created.Truncate(time.Microsecond)) || p.taken.Before(p.created) {
			t.Fatalf("%+v", p)
		}
		if p.fate == timedOut != p.answered.IsZero() || !p.answered.IsZero() && p.answered.Before(p.taken) {
			t.Fatalf("%+v", p)
		}
		if p.fate == confirmed != p.cancelled.IsZero() || p.fate == confirmed != p.released.IsZero() {
			t.Fatalf("%+v", p)
		}
		for _, at := range []time.Time{p.updated(), p.released, p.taken} {
			if !at.Before(end) {
				t.Fatalf("%+v ends after %s", p, end)
			}
		}
	}
	for f := confirmed; f <= timedOut; f++ {
		if fates[f] == 0 {
			t.Errorf("no order of fate %d", f)
		}
	}
}

func TestValuesAreEscapedForCopy(t *testing.T) {
	t.Parallel()
	tab := newTable("things", "a, b, c, d, e, f")
	if err := tab.row(nil, "a\tb\n\\", 7, time.Time{}, []string(nil), []byte{1, 255}); err != nil {
		t.Fatal(err)
	}
	if got, want := tab.rows.String(), "\\N\ta\\tb\\n\\\\\t7\t\\N\t\\N\t\\\\x01ff\n"; got != want {
		t.Errorf("row %q, want %q", got, want)
	}
}
