package bus

import "testing"

func TestSpanName(t *testing.T) {
	for want, of := range map[string][3]string{
		"do orders.exchange:order.created":         {"orders.exchange", "order.created", ""},
		"do orders.exchange:order.created:history": {"orders.exchange", "order.created", "history"},
		"do history":                 {"", "history", "history"},
		"do orders.exchange":         {"orders.exchange", "", ""},
		"do orders.exchange:history": {"orders.exchange", "", "history"},
	} {
		if got := spanName("do", of[0], of[1], of[2]); got != want {
			t.Errorf("%q: %q, want %q", of, got, want)
		}
	}
}
