package books_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"orderflow.internal/audit/internal/ask"
	"orderflow.internal/audit/internal/books"
	"orderflow.internal/events"
	wire "orderflow.internal/events/books"
	"orderflow.internal/kit/audit"
	"orderflow.internal/kit/bus"
)

// keepers are three services' answers, as the test writes them. An entry's
// digest is its own text.
type keepers struct {
	mu           sync.Mutex
	orders       map[uuid.UUID]wire.Order
	reservations map[uuid.UUID]wire.Reservation
	histories    map[uuid.UUID]wire.History
	waiting      map[string]int  // messages, by queue
	problem      string          // why that is not known
	stock        string          // products' lines
	endless      bool            // products never ends its lines
	down         string          // a service that is away
	reread       func(times int) // before the entries are read for the nth time
	reads        int
}

func newKeepers(t *testing.T) (*keepers, *ask.Client) {
	t.Helper()
	k := &keepers{
		orders: map[uuid.UUID]wire.Order{}, reservations: map[uuid.UUID]wire.Reservation{},
		histories: map[uuid.UUID]wire.History{}, waiting: map[string]int{},
		stock: `{"reservations":0,"products":3,"done":true}`,
	}
	server := httptest.NewServer(k)
	t.Cleanup(server.Close)
	base, err := url.Parse(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	return k, ask.NewClient(*base, server.Client())
}

// confirmed adds an order on which all agree.
func (k *keepers) confirmed() uuid.UUID {
	id := uuid.Must(uuid.NewV7())
	items := []events.Item{{ProductID: uuid.New(), Quantity: 2}}
	state := wire.State{CustomerID: uuid.New(), Status: wire.OrderConfirmed, Items: items, TotalCents: 200,
		Currency: "EUR", Version: 2, CreatedAt: time.Unix(1_800_000_000, 0).UTC(),
		UpdatedAt: time.Unix(1_800_000_001, 0).UTC()}
	told := []wire.Event{{RoutingKey: events.OrderCreatedKey, Published: true},
		{RoutingKey: events.OrderConfirmedKey, Published: true}}
	k.orders[id] = wire.Order{OrderID: id, State: state, Prices: []int64{100}, Answer: events.StockReservedKey,
		Events: told, Told: &state}
	k.reservations[id] = wire.Reservation{OrderID: id, Status: wire.ReservationReserved, Items: items, Created: true,
		Events: []wire.Event{{RoutingKey: events.StockReservedKey, Published: true}}}
	k.histories[id] = wire.History{OrderID: id, State: state}
	return id
}

// cancelled adds an order whose cancellation products has not handled.
func (k *keepers) cancelled(published bool) uuid.UUID {
	id := k.confirmed()
	o, h := k.orders[id], k.histories[id]
	o.Status, o.Reason, o.Version = wire.OrderCancelled, events.ReasonCustomerRequest, 3
	o.Events = append(slices.Clone(o.Events), wire.Event{RoutingKey: events.OrderCancelledKey, Published: published})
	o.Told = nil
	h.State = o.State
	k.orders[id], k.histories[id] = o, h
	return id
}

// parts are the digests' texts of an order in a service.
func (k *keepers) parts(service string, id uuid.UUID) (parts map[string]string, there, incomplete bool) {
	text := func(v any) string { b, _ := json.Marshal(v); return string(b) }
	switch service {
	case ask.Orders:
		o, there := k.orders[id]
		held := ""
		if o.Status == wire.OrderConfirmed {
			held = text(o.Items)
		}
		return map[string]string{wire.PartHistory: text(o.State), wire.PartReservation: held}, there, len(o.Missing) > 0
	case ask.Products:
		r, there := k.reservations[id]
		held := ""
		if r.Status == wire.ReservationReserved {
			held = text(r.Items)
		}
		return map[string]string{wire.PartReservation: held}, there, len(r.Missing) > 0
	}
	h, there := k.histories[id]
	return map[string]string{wire.PartHistory: text(h.State)}, there, false
}

// ids are those of a service in a span, in order.
func (k *keepers) ids(service string, r *http.Request) (ids []uuid.UUID) {
	all := map[string][]uuid.UUID{
		ask.Orders: slices.Collect(maps.Keys(k.orders)), ask.Products: slices.Collect(maps.Keys(k.reservations)),
		ask.Customers: slices.Collect(maps.Keys(k.histories)),
	}[service]
	after, until := uuid.MustParse(r.URL.Query().Get("after")), uuid.MustParse(r.URL.Query().Get("until"))
	for _, id := range all {
		if bytes.Compare(id[:], after[:]) > 0 && bytes.Compare(id[:], until[:]) <= 0 {
			ids = append(ids, id)
		}
	}
	slices.SortFunc(ids, func(a, b uuid.UUID) int { return bytes.Compare(a[:], b[:]) })
	return ids
}

func (k *keepers) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	k.mu.Lock()
	defer k.mu.Unlock()
	service, question, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/audit/")
	if service == k.down {
		http.Error(w, "down", http.StatusServiceUnavailable)
		return
	}
	var answer any
	switch question {
	case "digest":
		answer = k.digest(service, r)
	case "prints":
		p := audit.Prints{Prints: []audit.Print{}}
		for _, id := range k.ids(service, r) {
			parts, _, incomplete := k.parts(service, id)
			p.Prints = append(p.Prints, audit.Print{ID: id, Parts: parts, Incomplete: incomplete})
		}
		answer = p
	case "entries":
		answer = k.entries(service, r)
	case "handled":
		var q audit.Question
		_ = json.NewDecoder(r.Body).Decode(&q)
		answer = audit.Answer{Unhandled: []string{}, Depth: audit.Depth{Waiting: k.waiting[q.Queue], Problem: k.problem}}
	case "stock":
		_, _ = fmt.Fprintln(w, k.stock)
		if k.endless {
			_ = http.NewResponseController(w).Flush()
			k.mu.Unlock()
			<-r.Context().Done()
			k.mu.Lock()
		}
		return
	}
	_ = json.NewEncoder(w).Encode(answer)
}

func (k *keepers) digest(service string, r *http.Request) audit.Digest {
	ids := k.ids(service, r)
	d := audit.Digest{Until: uuid.MustParse(r.URL.Query().Get("until")), Parts: map[string]string{}}
	if limit, err := strconv.Atoi(r.URL.Query().Get("limit")); err == nil && len(ids) >= limit {
		ids = ids[:limit]
		d.Until = ids[limit-1]
	}
	d.Subjects = int64(len(ids))
	sums := map[string]*strings.Builder{wire.PartHistory: {}, wire.PartReservation: {}}
	for _, id := range ids {
		parts, _, incomplete := k.parts(service, id)
		for part, text := range parts {
			sums[part].WriteString(id.String() + text)
		}
		if incomplete {
			d.Incomplete++
		}
	}
	for part, text := range sums {
		d.Parts[part] = text.String()
	}
	return d
}

func (k *keepers) entries(service string, r *http.Request) any {
	var q audit.EntriesQuestion
	_ = json.NewDecoder(r.Body).Decode(&q)
	if service == ask.Orders && k.reread != nil {
		k.reads++
		k.reread(k.reads)
	}
	list := []any{}
	for _, subject := range q.Subjects {
		id := uuid.MustParse(subject)
		if _, there, _ := k.parts(service, id); !there {
			continue
		}
		switch service {
		case ask.Orders:
			list = append(list, k.orders[id])
		case ask.Products:
			list = append(list, k.reservations[id])
		default:
			list = append(list, k.histories[id])
		}
	}
	return map[string]any{"entries": list}
}

const grace = 30 * time.Millisecond

func run(t *testing.T, client *ask.Client) books.Report {
	t.Helper()
	report, err := books.New(books.Config{Rate: 1_000_000, Grace: grace, Named: 10}, client).
		Run(t.Context(), func(books.Report) {})
	if err != nil {
		t.Fatal(err)
	}
	return report
}

func TestAudit(t *testing.T) {
	t.Parallel()
	const unhandled = "event-unhandled"
	for name, test := range map[string]struct {
		prepare  func(k *keepers)
		counts   map[books.Kind]int64
		inFlight int64
	}{
		"balanced books": {prepare: func(*keepers) {}},
		"a lost cancellation": {
			prepare: func(k *keepers) { k.cancelled(true) },
			counts:  map[books.Kind]int64{unhandled: 1},
		},
		"a cancellation that waits in its queue": {
			prepare:  func(k *keepers) { k.cancelled(true); k.waiting[events.QueueProductsOrderCancelled] = 1 },
			inFlight: 1,
		},
		"a cancellation while the broker is away": {
			prepare:  func(k *keepers) { k.cancelled(true); k.problem = "the broker does not answer" },
			inFlight: 1,
		},
		"a cancellation whose queue is gone": {
			prepare: func(k *keepers) {
				k.cancelled(true)
				k.problem = fmt.Errorf("depth of %s: %w", events.QueueProductsOrderCancelled, bus.ErrNoQueue).Error()
			},
			counts: map[books.Kind]int64{unhandled: 1},
		},
		"a cancellation that waits in the outbox": {
			prepare:  func(k *keepers) { k.cancelled(false) },
			inFlight: 1,
		},
		"a lost cancellation while others wait elsewhere": {
			prepare: func(k *keepers) { k.cancelled(true); k.waiting[events.QueueCustomersOrderCancelled] = 1 },
			counts:  map[books.Kind]int64{unhandled: 1},
		},
		"an order that changes while it is looked at": {
			prepare: func(k *keepers) {
				id := k.cancelled(true)
				k.reread = func(times int) {
					if times > 1 { // handled meanwhile
						r := k.reservations[id]
						r.Status, r.Cancelled = wire.ReservationReleased, true
						k.reservations[id] = r
					}
				}
			},
		},
		"an order that says something else each time": {
			prepare: func(k *keepers) {
				id := k.confirmed()
				h := k.histories[id]
				h.TotalCents = -1
				k.histories[id] = h
				k.reread = func(times int) {
					o := k.orders[id]
					o.TotalCents, o.Told = int64(times), nil
					k.orders[id] = o
				}
			},
			inFlight: 1,
		},
		"orders that others have and orders has not, behind its last one": {
			prepare: func(k *keepers) {
				id := k.confirmed()
				delete(k.orders, id)
			},
			counts: map[books.Kind]int64{"unknown-order": 2},
		},
		"an order of the last page": {
			prepare: func(k *keepers) {
				for range 8_000 - 1 { // a whole page
					k.confirmed()
				}
				k.cancelled(true)
			},
			counts: map[books.Kind]int64{unhandled: 1},
		},
		"an outbox that lacks an event": {
			prepare: func(k *keepers) {
				id := k.confirmed()
				o := k.orders[id]
				o.Missing, o.Told = []string{events.OrderConfirmedKey}, nil
				k.orders[id] = o
			},
			counts: map[books.Kind]int64{"event-missing": 1},
		},
		"stock": {
			prepare: func(k *keepers) {
				k.stock = `{"reservations":1,"products":0,"done":false}` + "\n" +
					`{"products":3,"wrong":[{"productId":"` + uuid.NewString() +
					`","stock":1,"reserved":2,"supplied":4,"held":3}],"done":true}`
			},
			counts: map[books.Kind]int64{"reserved-differs": 1, "stock-differs": 1},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			k, client := newKeepers(t)
			k.confirmed()
			test.prepare(k)
			report := run(t, client)
			if !maps.Equal(report.Counts, test.counts) || report.InFlight != test.inFlight || report.Products != 3 {
				t.Errorf("found %v and %d in flight, want %v and %d: %+v",
					report.Counts, report.InFlight, test.counts, test.inFlight, report)
			}
			if report.Balanced() != (len(test.counts) == 0) {
				t.Errorf("says: %s", report.Verdict())
			}
		})
	}
}

// What cannot be found out is not balanced.
func TestAnAuditThatCannotAskFails(t *testing.T) {
	t.Parallel()
	for name, damage := range map[string]func(k *keepers){
		"a service is away":    func(k *keepers) { k.down = ask.Customers },
		"the stock breaks off": func(k *keepers) { k.stock = `{"reservations":1,"products":0,"done":false}` },
		"the stock fails":      func(k *keepers) { k.stock = `{"error":"no"}` },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			k, client := newKeepers(t)
			k.confirmed()
			damage(k)
			if _, err := books.New(books.Config{Rate: 1000, Grace: grace}, client).
				Run(t.Context(), func(books.Report) {}); err == nil {
				t.Error("no error")
			}
		})
	}
}

// The report names as many as it may and counts all.
func TestReportCountsTheRest(t *testing.T) {
	t.Parallel()
	k, client := newKeepers(t)
	for range 25 {
		k.cancelled(true)
	}
	report := run(t, client)
	var text, commands strings.Builder
	report.Write(&text)
	report.WriteCommands(&commands)
	if len(report.Differences) != 10 || report.Total() != 25 {
		t.Errorf("%d named of %d", len(report.Differences), report.Total())
	}
	if want := "The books do not balance: 25 differences (25 event-unhandled), " +
		"15 of them not named."; !strings.Contains(text.String(), want) {
		t.Errorf("wrote\n%s\nwithout: %s", text.String(), want)
	}
	if n := strings.Count(commands.String(), "orders republish --queue products.order.cancelled --subject "); n != 10 {
		t.Errorf("commands:\n%s", commands.String())
	}
}

// Orders per second are bounded.
func TestAuditKeepsItsRate(t *testing.T) {
	t.Parallel()
	k, client := newKeepers(t)
	for range 2 * 2_000 {
		k.confirmed()
	}
	began := time.Now()
	if _, err := books.New(books.Config{Rate: 8_000, Grace: grace}, client).
		Run(t.Context(), func(books.Report) {}); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(began); took < 500*time.Millisecond {
		t.Errorf("4,000 orders at 8,000 a second took %s", took)
	}
}

// Nobody reads a stock to its end for an audit that has failed already.
func TestAnAuditThatFailedWaitsForNothing(t *testing.T) {
	t.Parallel()
	k, client := newKeepers(t)
	k.endless, k.down = true, ask.Orders
	_, err := books.New(books.Config{Rate: 1000, Grace: time.Millisecond, Named: 10}, client).
		Run(t.Context(), func(books.Report) {})
	if err == nil || !strings.Contains(err.Error(), "orders") || strings.Contains(err.Error(), "stock") {
		t.Errorf("got %v", err)
	}
}
