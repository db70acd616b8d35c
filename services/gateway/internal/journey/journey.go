// Package journey tells an order's way through all services, from what each of
// them recorded.
package journey

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"net/http"
	"slices"
	"sync"
	"time"

	"orderflow.internal/events"
	"orderflow.internal/gateway/internal/proxy"
	"orderflow.internal/kit/web"
)

// patience is how long a service has to tell its part.
const patience = 5 * time.Second

// Handler serves the journey of {orderId}. Without orders there is none; a part
// of others that is not to be had is said to be missing.
func Handler(orders *proxy.Service, others map[string]*proxy.Service) http.HandlerFunc {
	return web.Handle(func(w http.ResponseWriter, r *http.Request) error {
		if err := web.CheckQuery(r); err != nil {
			return err
		}
		id, err := web.PathUUID(r, "orderId")
		if err != nil {
			return err
		}
		ctx, cancel := context.WithTimeout(r.Context(), patience)
		defer cancel()
		path, authorization := "/orders/"+id.String()+"/journey", r.Header.Get("Authorization")

		var all events.Journey
		var mu sync.Mutex
		var asking sync.WaitGroup
		parts := make(map[string]events.Journey, len(others))
		for name, service := range others {
			asking.Go(func() {
				var part events.Journey
				if err := service.Get(ctx, path, authorization, &part); err != nil {
					if !errors.Is(err, context.Canceled) {
						slog.WarnContext(ctx, "a part of a journey is missing", "service", name, "order_id", id, "error", err)
					}
					return
				}
				mu.Lock()
				defer mu.Unlock()
				parts[name] = part
			})
		}
		if err = orders.Get(ctx, path, authorization, &all); err != nil {
			cancel() // nobody needs the others
		}
		asking.Wait()
		if err != nil {
			return err
		}
		for name := range others {
			part, ok := parts[name]
			if !ok {
				all.Missing = append(all.Missing, name)
			}
			all.Steps = append(all.Steps, part.Steps...)
		}
		slices.Sort(all.Missing)
		slices.SortStableFunc(all.Steps, func(a, b events.Step) int {
			return cmp.Or(a.At.Compare(b.At), cmp.Compare(rank[a.Action], rank[b.Action]), cmp.Compare(a.Service, b.Service))
		})
		return web.Write(w, http.StatusOK, all)
	})
}

// rank orders what a transaction did at one time: it processed an event, and
// stored another because of it.
var rank = map[string]int{events.Processed: 0, events.Stored: 1, events.Published: 2}
