package api

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"time"

	"github.com/google/uuid"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/propagation"

	"orderflow.internal/events/books"
	"orderflow.internal/kit/audit"
)

// Orders asks the service orders what became of orders.
type Orders struct {
	base url.URL
	http *http.Client
}

// NewOrders returns a client of orders at base.
func NewOrders(base url.URL) *Orders {
	return &Orders{base: base, http: &http.Client{Transport: http.DefaultTransport.(*http.Transport).Clone()}}
}

const (
	// askTimeout bounds how long a plan waits for orders: it is made without its
	// answers, too.
	askTimeout = 3 * time.Second

	// askAtOnce is how many orders one question is about.
	askAtOnce = 300
)

// askAbout asks orders, in the caller's name, about the orders of a plan. asked
// is how many it has answered for within its time, final how many of those were
// Confirmed or Cancelled. An order that it does not know counts as asked.
func (a *api) askAbout(ctx context.Context, plan uuid.UUID, authorization string) (asked, final int) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	var after uuid.UUID
	for {
		var ended int
		ids, err := a.store.OrdersOf(ctx, plan, after, askAtOnce)
		if err == nil && len(ids) == 0 {
			return asked, final
		}
		if err == nil {
			ended, err = a.orders.ended(ctx, ids, authorization)
		}
		if err != nil {
			slog.InfoContext(ctx, "plan made without all that orders could say", "redrive_id", plan, "error", err)
			return asked, final
		}
		asked, final, after = asked+len(ids), final+ended, ids[len(ids)-1]
	}
}

// ended counts those of the orders that have a final state.
func (o *Orders) ended(ctx context.Context, ids []uuid.UUID, authorization string) (int, error) {
	q := audit.EntriesQuestion{Subjects: make([]string, len(ids))}
	for i, id := range ids {
		q.Subjects[i] = id.String()
	}
	body, err := json.Marshal(q)
	if err != nil {
		return 0, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, o.base.JoinPath("/api/orders/audit/entries").String(),
		bytes.NewReader(body))
	if err != nil {
		return 0, err
	}
	req.Header.Set("Content-Type", "application/json")
	if authorization != "" {
		req.Header.Set("Authorization", authorization)
	}
	otel.GetTextMapPropagator().Inject(ctx, propagation.HeaderCarrier(req.Header))
	resp, err := o.http.Do(req)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return 0, fmt.Errorf("orders answers %s", resp.Status)
	}
	var answer audit.Entries[books.Order]
	if err := json.NewDecoder(http.MaxBytesReader(nil, resp.Body, 16<<20)).Decode(&answer); err != nil {
		return 0, fmt.Errorf("read what orders answers: %w", err)
	}
	n := 0
	for _, order := range answer.Entries {
		if order.Status != books.OrderPending {
			n++
		}
	}
	return n, nil
}
