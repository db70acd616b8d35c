package systemtest

import (
	"testing"
	"time"

	"orderflow.internal/hack/internal/bench"
	"orderflow.internal/hack/stack"
)

// Two hundred at once want the last hundred units: as many get one, the others are told so, and nobody is left to the
// deadline.
func TestLastPieces(t *testing.T) {
	s := start(t, variant{})
	lastPieces(t, s)
}

func lastPieces(t testing.TB, s *stack.Stack) {
	o := bench.Defaults()
	o.BaseURL, o.Orders, o.Concurrency, o.Products, o.Stock = s.BaseURL(), 200, 200, 1, 100
	r, err := bench.Run(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Err(); err != nil {
		t.Error(err)
	}
	if r.States["Confirmed"] != 100 || r.States["Cancelled"] != 100 || r.Reasons["StockNotAvailable"] != 100 {
		t.Errorf("%v, cancelled for %v: want 100 Confirmed and 100 Cancelled because stock was short", r.States, r.Reasons)
	}
	slowest := time.Duration(r.Latency.Max * float64(time.Millisecond))
	if r.Latency.Orders != 200 || slowest > 5*time.Second {
		t.Errorf("%d orders were seen to end, the slowest after %s", r.Latency.Orders, slowest)
	}
	t.Logf("p50 %.0f ms, slowest %.0f ms", r.Latency.P50, r.Latency.Max)
}
