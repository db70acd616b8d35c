package e2e

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
)

type journey struct {
	OrderID string `json:"orderId"`
	TraceID string `json:"traceId"`
	Steps   []struct {
		Step, Service, Action, Detail string
		At                            time.Time
	} `json:"steps"`
	Missing []string `json:"missing"`
}

// journey waits until the order's journey has as many steps.
func (s shop) journey(id string, steps int) (j journey) {
	s.t.Helper()
	eventually(s.t, fmt.Sprintf("the journey has %d steps", steps), func() bool {
		j = journey{}
		s.do("GET", "/orders/"+id+"/journey", nil, nil, 200, &j)
		return len(j.Steps) >= steps
	})
	return j
}

// check compares a journey with its steps, given in any order, and sees that
// nothing comes before its cause.
func (j journey) check(t *testing.T, want ...string) {
	t.Helper()
	got := make([]string, len(j.Steps))
	at := map[string]time.Time{}
	for i, s := range j.Steps {
		got[i] = strings.TrimSpace(strings.Join([]string{s.Service, s.Action, s.Step, s.Detail}, " "))
		if i > 0 && s.At.Before(j.Steps[i-1].At) {
			t.Errorf("%s comes after %s, but its time is earlier", got[i], got[i-1])
		}
		if s.Action != "processed" {
			at[s.Action+" "+s.Step] = s.At
		}
	}
	for i, s := range j.Steps {
		cause, known := map[string]string{"published": "stored", "processed": "published"}[s.Action]
		// PostgreSQL keeps microseconds and rounds them.
		if known && s.At.Before(at[cause+" "+s.Step].Add(-time.Microsecond)) {
			t.Errorf("%s is at %s, before it was %s at %s", got[i], s.At, cause, at[cause+" "+s.Step])
		}
	}
	slices.Sort(got)
	slices.Sort(want)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("steps (-want +got):\n%s", diff)
	}
	if len(j.Missing) > 0 {
		t.Errorf("missing: %v", j.Missing)
	}
}

func TestJourneyOfAConfirmedThenCancelledOrder(t *testing.T) {
	s := open(t)
	p := s.product(5)
	traceparent, traceID := traced()
	var o order
	s.do("POST", "/orders", header{"traceparent": traceparent, "Prefer": "wait=30"},
		placing(uuid.NewString(), p.ProductID, 1), 201, &o)
	s.journey(o.OrderID, 10)
	s.do("POST", "/orders/"+o.OrderID+"/cancel", nil, nil, 200, nil)
	j := s.journey(o.OrderID, 16)
	if j.OrderID != o.OrderID || j.TraceID != traceID {
		t.Errorf("order %s, trace %s, want %s, %s", j.OrderID, j.TraceID, o.OrderID, traceID)
	}
	j.check(t,
		"orders stored order.created", "orders published order.created",
		"products processed order.created", "customers processed order.created",
		"products stored stock.reserved", "products published stock.reserved", "orders processed stock.reserved",
		"orders stored order.confirmed", "orders published order.confirmed", "customers processed order.confirmed",
		"orders stored order.cancelled CustomerRequest", "orders published order.cancelled",
		"products processed order.cancelled", "customers processed order.cancelled",
		"products stored stock.released", "products published stock.released")
}

func TestJourneyOfARefusedOrder(t *testing.T) {
	s := open(t)
	p := s.product(1)
	o := s.place(uuid.NewString(), p.ProductID, 2)
	s.journey(o.OrderID, 11).check(t,
		"orders stored order.created", "orders published order.created",
		"products processed order.created", "customers processed order.created",
		"products stored stock.notavailable", "products published stock.notavailable", "orders processed stock.notavailable",
		"orders stored order.cancelled StockNotAvailable", "orders published order.cancelled",
		"products processed order.cancelled NoEffect", "customers processed order.cancelled")
}

func TestNoJourney(t *testing.T) {
	s := open(t)
	s.do("GET", "/orders/"+uuid.NewString()+"/journey", nil, nil, 404, nil)
	s.do("GET", "/orders/nonsense/journey", nil, nil, 400, nil)
}
