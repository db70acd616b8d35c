package api

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/google/uuid"

	"orderflow.internal/kit/identity"
	"orderflow.internal/kit/web"
	"orderflow.internal/orders/internal/order"
)

const heartbeat = 15 * time.Second

// follow serves GET /api/orders/{orderId}/events: it streams an order's versions
// as Server-Sent Events (WHATWG HTML, section 9.2), the present one unless the
// client knows it, then the final one. A client that has seen the final one is
// told to stay away (204): an EventSource would ask again forever.
func (h *handlers) follow(w http.ResponseWriter, r *http.Request, id uuid.UUID) error {
	// Waiting begins before reading: nothing can happen in between unseen.
	waiter, ok := h.store.Wait(id)
	if !ok {
		return web.Unavailable("Too many orders are followed.")
	}
	defer waiter.Close()
	o, err := h.store.Get(r.Context(), owner(r), id)
	if err != nil {
		return err
	}
	seen, err := strconv.Atoi(r.Header.Get("Last-Event-ID"))
	if err != nil {
		seen = 0 // an id that is not ours; the header is free text
	}

	if o.Status.Final() && seen >= o.Version {
		w.WriteHeader(http.StatusNoContent)
		return nil
	}
	beginStream(w)
	if r.Method == http.MethodHead {
		return nil
	}
	s := stream{w, http.NewResponseController(w)}
	if o.Version > seen {
		err = s.send(&o)
	} else {
		err = s.comment() // the headers go out now
	}
	if err != nil || o.Status.Final() {
		return nil // a client that is gone is not a failure
	}

	beat := time.NewTicker(heartbeat)
	defer beat.Stop()
	expired, stop := expiry(r)
	defer stop()
	for {
		select {
		case final := <-waiter.Final():
			_ = s.send(&final) // as above; there is nothing after it
			return nil
		case <-beat.C:
			if s.comment() != nil {
				return nil
			}
		case <-web.Draining(r.Context()): // the client comes again, to another replica
			return nil
		case <-expired: // the client comes again, with another token
			return nil
		case <-r.Context().Done():
			return nil
		}
	}
}

func beginStream(w http.ResponseWriter) {
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("Cache-Control", "no-cache")
	w.Header().Set("X-Accel-Buffering", "no") // or nginx keeps events back
	w.WriteHeader(http.StatusOK)
}

// expiry tells when the caller's token has expired, never for one without.
func expiry(r *http.Request) (expired <-chan time.Time, stop func() bool) {
	end := identity.From(r.Context()).Expires
	if end.IsZero() {
		return nil, func() bool { return false }
	}
	timer := time.NewTimer(time.Until(end))
	return timer.C, timer.Stop
}

// stream writes Server-Sent Events, each at once.
type stream struct {
	w       http.ResponseWriter
	control *http.ResponseController
}

func (s stream) send(o *order.Order) error {
	var text bytes.Buffer
	fmt.Fprintf(&text, "event: order\nid: %d\ndata: ", o.Version)
	if err := json.NewEncoder(&text).Encode(body(o)); err != nil { // ends the line
		return fmt.Errorf("encode order %s: %w", o.ID, err)
	}
	text.WriteByte('\n')
	return s.write(text.Bytes())
}

// comment is what a client ignores; it keeps proxies from closing the
// connection and finds out when the client is gone.
func (s stream) comment() error { return s.write([]byte(":\n\n")) }

func (s stream) write(text []byte) error {
	if _, err := s.w.Write(text); err != nil {
		return err
	}
	return s.control.Flush()
}
