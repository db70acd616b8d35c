package bench

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
)

// fake is the order API in memory. Its hooks break the promises that a run checks.
type fake struct {
	saga    time.Duration                                                   // how long an order stays Pending
	before  func(w http.ResponseWriter, r *http.Request, n int) (done bool) // may answer the n-th POST, from 1
	reserve func(o *fakeOrder) bool                                         // the stock rule; has the lock
	finish  func(o *fakeOrder) bool                                         // false: the order stays Pending; has the lock
	tell    func(o *fakeOrder) bool                                         // may change a history's copy, or leave it out
	forget  func(w http.ResponseWriter, o *order)                           // instead of 503 with Retry-After

	answered func(o *fakeOrder) // called after an order was answered; has the lock

	mu       sync.Mutex
	posts    int
	lists    int
	keys     map[string]*fakeOrder
	orders   []*fakeOrder
	products map[uuid.UUID]*product
	away     int // products that are refused first
}

type fakeOrder struct {
	order
	CustomerID uuid.UUID
	n          int
	done       chan struct{}
}

func (f *fake) serve(t *testing.T) string {
	t.Helper()
	f.keys = make(map[string]*fakeOrder)
	f.products = make(map[uuid.UUID]*product)
	mux := http.NewServeMux()
	mux.HandleFunc("POST /orders", f.post)
	mux.HandleFunc("GET /orders", f.list)
	mux.HandleFunc("GET /orders/{id}", f.getOrder)
	mux.HandleFunc("GET /customers/{id}/orders", f.history)
	mux.HandleFunc("POST /products", f.createProduct)
	mux.HandleFunc("GET /products/{id}", f.getProduct)
	mux.HandleFunc("DELETE /products/{id}", f.deleteProduct)
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	return server.URL
}

func (f *fake) post(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	f.posts++
	n := f.posts
	f.mu.Unlock()
	if f.before != nil && f.before(w, r, n) {
		return
	}
	var body struct {
		CustomerID uuid.UUID
		Items      []item
	}
	decoder := json.NewDecoder(r.Body)
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&body); err != nil {
		problem(w, http.StatusBadRequest, "malformed-json", err.Error())
		return
	}
	key := r.Header.Get("Idempotency-Key")
	f.mu.Lock()
	o, known := f.keys[key]
	if key == "" || !known {
		o = f.store(body.CustomerID, body.Items)
		f.keys[key] = o
	}
	f.mu.Unlock()
	if r.Header.Get("Prefer") != "respond-async" {
		select {
		case <-o.done:
		case <-time.After(5 * time.Second):
		case <-r.Context().Done():
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	status := http.StatusAccepted
	if o.Status.final() {
		status = http.StatusCreated
	}
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(o.order)
	if f.answered != nil {
		f.answered(o)
	}
}

// store makes an order and lets it become final in the background.
func (f *fake) store(customer uuid.UUID, items []item) *fakeOrder {
	o := &fakeOrder{CustomerID: customer, n: len(f.orders), done: make(chan struct{})}
	o.order = order{ID: uuid.New(), Status: pending, Items: items}
	f.orders = append(f.orders, o)
	f.later(f.saga, func() {
		if f.finish != nil && !f.finish(o) {
			return
		}
		reserve := f.reserve
		if reserve == nil {
			reserve = f.reserveAll
		}
		o.Status = confirmed
		if !reserve(o) {
			o.Status, o.Reason = cancelled, "StockNotAvailable"
		}
		close(o.done)
	})
	return o
}

// later calls do, under the lock.
func (f *fake) later(d time.Duration, do func()) {
	time.AfterFunc(d, func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		do()
	})
}

// storeAndForget is a before that stores the victim's order but neither tells so nor keeps its idempotency key.
func (f *fake) storeAndForget(w http.ResponseWriter, r *http.Request, n int) bool {
	if n != victim {
		return false
	}
	var body struct {
		CustomerID uuid.UUID
		Items      []item
	}
	_ = json.NewDecoder(r.Body).Decode(&body)
	f.mu.Lock()
	defer f.mu.Unlock()
	o := f.store(body.CustomerID, body.Items)
	if f.forget != nil {
		f.forget(w, &o.order)
	} else {
		unavailable(w)
	}
	return true
}

func (f *fake) reserveAll(o *fakeOrder) bool {
	for _, i := range o.Items {
		if f.products[i.ProductID].Stock < i.Quantity {
			return false
		}
	}
	for _, i := range o.Items {
		f.products[i.ProductID].Stock -= i.Quantity
	}
	return true
}

func (f *fake) getOrder(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, o := range f.orders {
		if o.ID.String() == r.PathValue("id") {
			_ = json.NewEncoder(w).Encode(o.order)
			return
		}
	}
	problem(w, http.StatusNotFound, "not-found", "no such order")
}

func (f *fake) list(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.lists++
	q := r.URL.Query()
	var found []order
	for _, o := range slices.Backward(f.orders) {
		if c := q.Get("customerId"); c != "" && c != o.CustomerID.String() {
			continue
		}
		if s := q.Get("status"); s != "" && s != string(o.Status) {
			continue
		}
		found = append(found, o.order)
	}
	writePage(w, r, found)
}

func (f *fake) history(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	defer f.mu.Unlock()
	var found []order
	for _, o := range f.orders {
		told := *o
		if f.tell != nil && !f.tell(&told) {
			continue
		}
		if told.CustomerID.String() == r.PathValue("id") {
			found = append(found, told.order)
		}
	}
	writePage(w, r, found)
}

func writePage(w http.ResponseWriter, r *http.Request, all []order) {
	limit, _ := strconv.Atoi(r.URL.Query().Get("limit"))
	from, _ := strconv.Atoi(r.URL.Query().Get("after"))
	if limit < 1 || limit > maxPage {
		problem(w, http.StatusBadRequest, "validation", "limit")
		return
	}
	page := map[string]any{"orders": all[min(from, len(all)):min(from+limit, len(all))]}
	if from+limit < len(all) {
		page["next"] = strconv.Itoa(from + limit)
	}
	_ = json.NewEncoder(w).Encode(page)
}

func (f *fake) createProduct(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	defer f.mu.Unlock()
	var p product
	if err := json.NewDecoder(r.Body).Decode(&p); err != nil {
		problem(w, http.StatusBadRequest, "malformed-json", err.Error())
		return
	}
	if f.away > 0 {
		f.away--
		unavailable(w)
		return
	}
	f.products[p.ID] = &p
	w.WriteHeader(http.StatusCreated)
	_ = json.NewEncoder(w).Encode(p)
}

func (f *fake) getProduct(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	defer f.mu.Unlock()
	p, found := f.products[uuid.MustParse(r.PathValue("id"))]
	if !found {
		problem(w, http.StatusNotFound, "not-found", "no such product")
		return
	}
	_ = json.NewEncoder(w).Encode(p)
}

func (f *fake) deleteProduct(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.products, uuid.MustParse(r.PathValue("id")))
	w.WriteHeader(http.StatusNoContent)
}

func problem(w http.ResponseWriter, status int, slug, detail string) {
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(map[string]any{"type": "/problems/" + slug, "status": status, "detail": detail})
}

func unavailable(w http.ResponseWriter) {
	w.Header().Set("Retry-After", "0")
	problem(w, http.StatusServiceUnavailable, "unavailable", "the database is away")
}
