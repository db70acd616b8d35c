package order_test

import (
	"errors"
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"orderflow.internal/orders/internal/order"
)

var (
	placed = time.Date(2026, 11, 5, 9, 30, 0, 123456789, time.UTC)
	later  = placed.Add(20 * time.Millisecond)
	cup    = uuid.MustParse("550e8400-e29b-41d4-a716-446655440001")
	pot    = uuid.MustParse("550e8400-e29b-41d4-a716-446655440002")
)

func newOrder(t testing.TB) order.Order {
	t.Helper()
	o, err := order.New(uuid.New(), []order.Item{{ProductID: cup, Quantity: 2}, {ProductID: pot, Quantity: 1}}, placed)
	if err != nil {
		t.Fatal(err)
	}
	return o
}

func priced(id uuid.UUID, quantity int, cents int64) order.Item {
	return order.Item{ProductID: id, Quantity: quantity, UnitPriceCents: &cents}
}

var reservation = []order.Item{priced(cup, 2, 2499), priced(pot, 1, 3000)}

func TestNewOrderIsPending(t *testing.T) {
	o := newOrder(t)
	if o.Status != order.Pending || o.Version != 1 || o.ID.Version() != 7 {
		t.Errorf("got status %s, version %d, id version %d", o.Status, o.Version, o.ID.Version())
	}
	if want := placed.Truncate(time.Microsecond); !o.CreatedAt.Equal(want) || !o.UpdatedAt.Equal(want) {
		t.Errorf("created %v, updated %v, want %v", o.CreatedAt, o.UpdatedAt, want)
	}
}

// Each transition from each state: where it leads, and that what changes
// nothing leaves everything as it was.
func TestTransitions(t *testing.T) {
	confirm := func(o *order.Order) (bool, error) { return o.Confirm(reservation, "EUR", later) }
	refuse := func(o *order.Order) (bool, error) {
		return o.Refuse([]order.Shortage{{ProductID: cup, RequestedQuantity: 2, AvailableQuantity: 1}}, later)
	}
	cancel := func(o *order.Order) (bool, error) { return o.Cancel(later), nil }
	timeOut := func(o *order.Order) (bool, error) { return o.TimeOut(later), nil }

	for _, tt := range []struct {
		name    string
		before  []func(*order.Order) (bool, error)
		do      func(*order.Order) (bool, error)
		changes bool
		status  order.Status
		reason  order.Reason
		version int
	}{
		{"confirm pending", nil, confirm, true, order.Confirmed, "", 2},
		{"refuse pending", nil, refuse, true, order.Cancelled, order.StockNotAvailable, 2},
		{"cancel pending", nil, cancel, true, order.Cancelled, order.CustomerRequest, 2},
		{"time out pending", nil, timeOut, true, order.Cancelled, order.TimedOut, 2},
		{"confirm again", []func(*order.Order) (bool, error){confirm}, confirm, false, order.Confirmed, "", 2},
		{"refuse confirmed", []func(*order.Order) (bool, error){confirm}, refuse, false, order.Confirmed, "", 2},
		{"cancel confirmed", []func(*order.Order) (bool, error){confirm}, cancel, true, order.Cancelled,
			order.CustomerRequest, 3},
		{"time out confirmed", []func(*order.Order) (bool, error){confirm}, timeOut, false, order.Confirmed, "", 2},
		{"confirm cancelled", []func(*order.Order) (bool, error){cancel}, confirm, false, order.Cancelled,
			order.CustomerRequest, 2},
		{"confirm timed out", []func(*order.Order) (bool, error){timeOut}, confirm, false, order.Cancelled,
			order.TimedOut, 2},
		{"refuse cancelled", []func(*order.Order) (bool, error){cancel}, refuse, false, order.Cancelled,
			order.CustomerRequest, 2},
		{"cancel refused", []func(*order.Order) (bool, error){refuse}, cancel, false, order.Cancelled,
			order.StockNotAvailable, 2},
		{"time out refused", []func(*order.Order) (bool, error){refuse}, timeOut, false, order.Cancelled,
			order.StockNotAvailable, 2},
	} {
		t.Run(tt.name, func(t *testing.T) {
			o := newOrder(t)
			for _, step := range tt.before {
				if changed, err := step(&o); !changed || err != nil {
					t.Fatalf("before: changed %v, error %v", changed, err)
				}
			}
			before := o
			changed, err := tt.do(&o)
			if err != nil {
				t.Fatal(err)
			}
			if changed != tt.changes || o.Status != tt.status || o.Reason != tt.reason || o.Version != tt.version {
				t.Errorf("changed %v to %s %q version %d, want %v to %s %q version %d",
					changed, o.Status, o.Reason, o.Version, tt.changes, tt.status, tt.reason, tt.version)
			}
			if diff := cmp.Diff(before, o); !changed && diff != "" {
				t.Errorf("changed nothing, but (-before +after):\n%s", diff)
			}
		})
	}
}

func TestConfirmPricesTheOrder(t *testing.T) {
	o := newOrder(t)
	// Reserved in another sequence than ordered.
	if changed, err := o.Confirm([]order.Item{reservation[1], reservation[0]}, "EUR", later); !changed || err != nil {
		t.Fatalf("changed %v, error %v", changed, err)
	}
	if diff := cmp.Diff(reservation, o.Items); diff != "" {
		t.Errorf("items (-want +got):\n%s", diff)
	}
	if o.TotalCents != 2*2499+3000 || o.Currency != "EUR" {
		t.Errorf("total %d %s", o.TotalCents, o.Currency)
	}
	o.Cancel(later)
	if o.TotalCents != 2*2499+3000 || o.Items[0].UnitPriceCents == nil {
		t.Error("cancelling forgot the prices")
	}
}

func TestConfirmKeepsTheOldVersionsItems(t *testing.T) {
	o := newOrder(t)
	pending := o
	if _, err := o.Confirm(reservation, "EUR", later); err != nil {
		t.Fatal(err)
	}
	if pending.Items[0].UnitPriceCents != nil {
		t.Error("a copy of the Pending order got prices")
	}
}

func TestAnswersThatDoNotFit(t *testing.T) {
	for name, reserved := range map[string][]order.Item{
		"nothing":           {},
		"item missing":      {priced(cup, 2, 1)},
		"item too many":     {priced(cup, 2, 1), priced(pot, 1, 1), priced(uuid.New(), 1, 1)},
		"another product":   {priced(cup, 2, 1), priced(uuid.New(), 1, 1)},
		"another quantity":  {priced(cup, 2, 1), priced(pot, 2, 1)},
		"the same twice":    {priced(cup, 2, 1), priced(cup, 2, 1)},
		"no price":          {priced(cup, 2, 1), {ProductID: pot, Quantity: 1}},
		"negative price":    {priced(cup, 2, 1), priced(pot, 1, -1)},
		"price overflows":   {priced(cup, 2, math.MaxInt64/2+1), priced(pot, 1, 0)},
		"total overflows":   {priced(cup, 2, math.MaxInt64/2), priced(pot, 1, 2)},
		"price is infinite": {priced(cup, 2, math.MaxInt64), priced(pot, 1, math.MaxInt64)},
	} {
		t.Run("reserved/"+name, func(t *testing.T) {
			o := newOrder(t)
			before := o
			changed, err := o.Confirm(reserved, "EUR", later)
			if changed || !errors.Is(err, order.ErrMismatch) {
				t.Errorf("changed %v, error %v", changed, err)
			}
			if diff := cmp.Diff(before, o); diff != "" {
				t.Errorf("(-before +after):\n%s", diff)
			}
		})
	}
	for name, short := range map[string]order.Shortage{
		"another product":  {ProductID: uuid.New(), RequestedQuantity: 2},
		"another quantity": {ProductID: cup, RequestedQuantity: 3},
	} {
		t.Run("short/"+name, func(t *testing.T) {
			o := newOrder(t)
			if changed, err := o.Refuse([]order.Shortage{short}, later); changed || !errors.Is(err, order.ErrMismatch) {
				t.Errorf("changed %v, error %v", changed, err)
			}
		})
	}
	t.Run("largest total", func(t *testing.T) {
		o := newOrder(t)
		if _, err := o.Confirm([]order.Item{priced(cup, 2, math.MaxInt64/2), priced(pot, 1, 1)}, "EUR", later); err != nil {
			t.Fatal(err)
		}
		if o.TotalCents != math.MaxInt64 {
			t.Errorf("total %d", o.TotalCents)
		}
	})
}

// Whatever happens in whatever sequence and however often: only the allowed
// transitions are made, each one raises the version by one, time does not run
// backwards, and a Cancelled order never changes again.
func TestAnySequenceOfTransitionsIsLegal(t *testing.T) {
	allowed := map[[2]order.Status]bool{
		{order.Pending, order.Confirmed}:   true,
		{order.Pending, order.Cancelled}:   true,
		{order.Confirmed, order.Cancelled}: true,
	}
	for seed := range uint64(2000) {
		random := rand.New(rand.NewPCG(seed, 6))
		o := newOrder(t)
		for range 12 {
			before := o
			now := placed.Add(time.Duration(random.IntN(100)-50) * time.Millisecond)
			var changed bool
			var err error
			switch random.IntN(5) {
			case 0:
				changed, err = o.Confirm(reservation, "EUR", now)
			case 1:
				changed, err = o.Refuse([]order.Shortage{{ProductID: pot, RequestedQuantity: 1}}, now)
			case 2:
				changed = o.Cancel(now)
			case 3:
				changed = o.TimeOut(now)
			case 4:
				_, err = o.Confirm(reservation[:1], "EUR", now)
				if !errors.Is(err, order.ErrMismatch) {
					t.Fatalf("seed %d: error %v", seed, err)
				}
				err = nil
			}
			if err != nil {
				t.Fatalf("seed %d: %v", seed, err)
			}
			if !changed {
				if diff := cmp.Diff(before, o); diff != "" {
					t.Fatalf("seed %d: changed nothing, but (-before +after):\n%s", seed, diff)
				}
				continue
			}
			if !allowed[[2]order.Status{before.Status, o.Status}] {
				t.Fatalf("seed %d: %s -> %s", seed, before.Status, o.Status)
			}
			if o.Version != before.Version+1 || o.UpdatedAt.Before(before.UpdatedAt) {
				t.Fatalf("seed %d: version %d -> %d, updated %v -> %v",
					seed, before.Version, o.Version, before.UpdatedAt, o.UpdatedAt)
			}
			if (o.Status == order.Cancelled) != (o.Reason != "") {
				t.Fatalf("seed %d: %s for reason %q", seed, o.Status, o.Reason)
			}
			if (o.Reason == order.StockNotAvailable) != (o.Shortages != nil) {
				t.Fatalf("seed %d: reason %q with shortages %v", seed, o.Reason, o.Shortages)
			}
		}
	}
}
