package e2e

import (
	"bufio"
	"context"
	"encoding/json"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
)

func TestGuide(t *testing.T) {
	s := open(t)
	s.guideProduct()
	var bought, tooMuch order
	s.do("POST", "/products/"+guideProduct+"/restock", nil, map[string]int{"quantity": 2}, 200, nil)
	s.do("POST", "/orders", nil, placing(guideCustomer, guideProduct, 2), 201, &bought)
	if bought.Status != "Confirmed" || bought.Total == nil || bought.Total.AmountCents <= 0 {
		t.Errorf("the guide's order is %+v", bought)
	}
	s.do("POST", "/orders", nil, placing(guideCustomer, guideProduct, 10_000), 201, &tooMuch)
	if tooMuch.Status != "Cancelled" || text(tooMuch.Reason) != "StockNotAvailable" || len(tooMuch.Shortages) != 1 ||
		tooMuch.Shortages[0].ProductID != guideProduct || tooMuch.Shortages[0].RequestedQuantity != 10_000 ||
		tooMuch.Shortages[0].AvailableQuantity >= 10_000 {
		t.Errorf("too large an order is %+v", tooMuch)
	}
	s.history(guideCustomer, bought)
	s.history(guideCustomer, tooMuch)
}

func TestAllItemsOrNone(t *testing.T) {
	s := open(t)
	plenty, scarce := s.product(10), s.product(1)
	body := map[string]any{"customerId": uuid.NewString(),
		"items": []item{{plenty.ProductID, 3}, {scarce.ProductID, 2}, {uuid.NewString(), 1}}}
	var o order
	s.do("POST", "/orders", header{"Prefer": "wait=30"}, body, 201, &o)
	if o.Status != "Cancelled" || len(o.Shortages) != 2 || o.Shortages[0] != (shortage{scarce.ProductID, 2, 1}) ||
		o.Shortages[1].AvailableQuantity != 0 {
		t.Errorf("order is %+v", o)
	}
	if got := s.stock(plenty.ProductID); got != 10 {
		t.Errorf("stock of the plentiful product is %d, want 10", got)
	}
}

func TestCancelGivesStockBackOnce(t *testing.T) {
	s := open(t)
	p, customer := s.product(10), uuid.NewString()
	o := s.place(customer, p.ProductID, 4)
	if got := s.stock(p.ProductID); got != 6 {
		t.Errorf("stock after the order is %d, want 6", got)
	}
	var cancelled order
	for range 3 { // again is the same answer
		s.do("POST", "/orders/"+o.OrderID+"/cancel", nil, nil, 200, &cancelled)
		if cancelled.Status != "Cancelled" || text(cancelled.Reason) != "CustomerRequest" || cancelled.Version != 3 {
			t.Errorf("cancelled order is %+v", cancelled)
		}
	}
	eventually(t, "the stock is 10 again", func() bool { return s.stock(p.ProductID) == 10 })
	s.history(customer, cancelled)
}

func TestIdempotencyKey(t *testing.T) {
	s := open(t)
	p, customer, key := s.product(100), uuid.NewString(), uuid.NewString()
	ids := make([]string, 8)
	var wg sync.WaitGroup
	for i := range ids {
		wg.Go(func() {
			var o order
			s.do("POST", "/orders", header{"Idempotency-Key": key, "Prefer": "wait=30"},
				placing(customer, p.ProductID, 5), 201, &o)
			ids[i] = o.OrderID
		})
	}
	wg.Wait()
	for _, id := range ids {
		if id != ids[0] {
			t.Errorf("one key made the orders %s and %s", ids[0], id)
		}
	}
	if got := s.stock(p.ProductID); got != 95 {
		t.Errorf("stock is %d, want 95", got)
	}
	s.do("POST", "/orders", header{"Idempotency-Key": key}, placing(customer, p.ProductID, 6), 422, nil)
}

func TestPreferRespondAsync(t *testing.T) {
	s := open(t)
	var o order
	got := s.do("POST", "/orders", header{"Prefer": "respond-async"},
		placing(uuid.NewString(), s.product(1).ProductID, 1), 202, &o)
	if o.Status != "Pending" || got.Get("Location") != "/orders/"+o.OrderID ||
		got.Get("Preference-Applied") != "respond-async" {
		t.Errorf("order is %+v with headers %v", o, got)
	}
	eventually(t, "the order is confirmed", func() bool {
		s.do("GET", got.Get("Location"), nil, nil, 200, &o)
		return o.Status == "Confirmed"
	})
}

func TestEventsFollowAnOrderToItsEnd(t *testing.T) {
	s := open(t)
	var o order
	s.do("POST", "/orders", header{"Prefer": "respond-async"},
		placing(uuid.NewString(), s.product(1).ProductID, 1), 202, &o)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.base+"/orders/"+o.OrderID+"/events", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := s.http.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	last := order{}
	lines := bufio.NewScanner(resp.Body)
	for lines.Scan() { // ends by itself after a final state
		if data, ok := strings.CutPrefix(lines.Text(), "data: "); ok {
			next := order{}
			if err := json.Unmarshal([]byte(data), &next); err != nil {
				t.Fatalf("%v in %s", err, data)
			}
			if next.Version <= last.Version {
				t.Errorf("version %d follows version %d", next.Version, last.Version)
			}
			last = next
		}
	}
	if err := lines.Err(); err != nil {
		t.Fatal(err)
	}
	if last.Status != "Confirmed" {
		t.Errorf("the last state is %+v", last)
	}
}

func TestTheLastPiecesGoToExactlyAsMany(t *testing.T) {
	s := open(t)
	p := s.product(100)
	var mu sync.Mutex
	ended := map[string]int{}
	var wg sync.WaitGroup
	// A client that checks 200 messages at once may leave a new connection unused for the five seconds that it has.
	slots := make(chan struct{}, 50)
	for range 200 {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			o := s.place(uuid.NewString(), p.ProductID, 1)
			mu.Lock()
			defer mu.Unlock()
			ended[o.Status]++
		})
	}
	wg.Wait()
	if ended["Confirmed"] != 100 || ended["Cancelled"] != 100 {
		t.Errorf("orders ended %v, want 100 of each", ended)
	}
	if got := s.stock(p.ProductID); got != 0 {
		t.Errorf("stock is %d, want 0", got)
	}
}

func TestListsGoPageByPage(t *testing.T) {
	s := open(t)
	p, customer := s.product(100), uuid.NewString()
	var want []string
	for range 7 {
		want = append([]string{s.place(customer, p.ProductID, 1).OrderID}, want...) // newest first
	}
	var got []string
	after := ""
	for {
		var page struct {
			Orders []order
			Next   string
		}
		s.do("GET", "/orders?customerId="+customer+"&limit=3"+after, nil, nil, 200, &page)
		for _, o := range page.Orders {
			got = append(got, o.OrderID)
		}
		if page.Next == "" {
			break
		}
		after = "&after=" + page.Next
	}
	if strings.Join(got, " ") != strings.Join(want, " ") {
		t.Errorf("listed %v, want %v", got, want)
	}
}

func TestBadRequestsNameTheFieldAndStoreNothing(t *testing.T) {
	s := open(t)
	customer := uuid.NewString()
	id := guideProduct
	many := make([]item, 101)
	for i := range many {
		many[i] = item{uuid.NewString(), 1}
	}
	cases := []struct {
		name   string
		body   any
		status int
		field  string
	}{
		{"quantity 0", placing(customer, id, 0), 422, "quantity"},
		{"quantity 10,001", placing(customer, id, 10_001), 422, "quantity"},
		{"a product twice", map[string]any{"customerId": customer, "items": []item{{id, 1}, {id, 1}}}, 422,
			"items[1].productId"},
		{"101 items", map[string]any{"customerId": customer, "items": many}, 422, "items"},
		{"no items", map[string]any{"customerId": customer, "items": []item{}}, 422, "items"},
		{"unknown field", `{"customerId":"` + customer + `","productId":"` + id + `","quantity":1,"color":"red"}`,
			400, "color"},
		{"wrong type", `{"customerId":"` + customer + `","productId":"` + id + `","quantity":"two"}`, 400, "quantity"},
		{"bad UUID", placing("me", id, 1), 400, "customerId"},
		{"not JSON", `{"customerId"`, 400, ""},
		{"too large", `{"customerId":"` + strings.Repeat("x", 64<<10) + `"}`, 413, ""},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			var p problem
			shop{t, s.base, s.http}.do("POST", "/orders", nil, c.body, c.status, &p)
			if p.Status != c.status || p.Type == "" || p.Type == "about:blank" {
				t.Errorf("problem is %+v", p)
			}
			if c.field != "" && (len(p.Errors) != 1 || p.Errors[0].Field != c.field) {
				t.Errorf("errors are %+v, want one of %s", p.Errors, c.field)
			}
		})
	}
	var list struct{ Orders []order }
	s.do("GET", "/orders?customerId="+customer, nil, nil, 200, &list)
	if len(list.Orders) != 0 {
		t.Errorf("stored %+v", list.Orders)
	}
	// with a key or without, no other address places an order
	for _, path := range []string{"/orders/", "/orders//", "/orders/.", "/orders/?"} {
		s.do("POST", path, header{"Idempotency-Key": customer}, placing(customer, id, 1), 404, nil)
	}
	s.do("GET", "/orders?customerId="+customer+";limit=1", nil, nil, 400, nil)
	s.do("GET", "/orders?customerId=", nil, nil, 400, nil)
	s.do("GET", "/orders?after=nonsense", nil, nil, 400, nil)
	s.do("GET", "/orders?limit=201", nil, nil, 400, nil)
	s.do("GET", "/orders/nonsense", nil, nil, 400, nil)
	s.do("GET", "/orders/"+uuid.NewString(), nil, nil, 404, nil)
}

func TestTwoEditorsOfOneProduct(t *testing.T) {
	s := open(t)
	p := s.product(1)
	got := s.do("GET", "/products/"+p.ProductID, nil, nil, 200, nil)
	edit := map[string]any{"name": "Renamed", "priceCents": 300}
	s.do("PUT", "/products/"+p.ProductID, header{"If-Match": got.Get("ETag")}, edit, 200, nil)
	s.do("PUT", "/products/"+p.ProductID, header{"If-Match": got.Get("ETag")}, edit, 412, nil)
	s.do("DELETE", "/products/"+p.ProductID, nil, nil, 204, nil)
	s.do("GET", "/products/"+p.ProductID, nil, nil, 404, nil)
}
