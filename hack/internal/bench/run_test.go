package bench

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"reflect"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
)

func quick(url string) Options {
	o := Defaults()
	o.BaseURL = url
	o.Orders = 300
	o.Concurrency = 16
	o.Products = 10
	o.Poll = 2 * time.Millisecond
	o.Settle = 30 * time.Second
	return o
}

func mustRun(t *testing.T, o Options) Report {
	t.Helper()
	r, err := Run(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestHealthySystem(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(*Options){
		"closed":           func(*Options) {},
		"closed async":     func(o *Options) { o.Async = true },
		"open":             func(o *Options) { o.Rate = 2000 },
		"open async":       func(o *Options) { o.Rate, o.Async = 2000, true },
		"one product":      func(o *Options) { o.Products = 1 },
		"several items":    func(o *Options) { o.Items = 3 },
		"retry":            func(o *Options) { o.Retry = true },
		"one order":        func(o *Options) { o.Orders = 1 },
		"one after other":  func(o *Options) { o.Concurrency = 1 },
		"keep the product": func(o *Options) { o.Keep = true },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := &fake{saga: 2 * time.Millisecond}
			o := quick(f.serve(t))
			change(&o)
			r := mustRun(t, o)
			if err := r.Err(); err != nil {
				t.Error(err)
			}
			if r.Accepted != o.Orders || r.States[confirmed] != o.Orders || r.Latency.Orders != o.Orders || len(r.Errors) != 0 {
				t.Errorf("report %+v", r)
			}
			if r.OrdersPerSecond <= 0 || r.Latency.P50 < 2 || r.Latency.P50 > r.Latency.Max {
				t.Errorf("%v orders/s, latency %+v", r.OrdersPerSecond, r.Latency)
			}
			if left := len(f.products); (left > 0) != o.Keep {
				t.Errorf("%d products are left, keep %v", left, o.Keep)
			}
			var keys []string
			for key := range f.keys {
				keys = append(keys, key)
			}
			if o.Retry && len(keys) != o.Orders || !o.Retry && (len(keys) != 1 || keys[0] != "") {
				t.Errorf("%d idempotency keys, retry %v", len(keys), o.Retry)
			}
		})
	}
}

func TestShortage(t *testing.T) {
	t.Parallel()
	f := &fake{}
	o := quick(f.serve(t))
	o.Orders, o.Products, o.Stock = 200, 1, 100
	r := mustRun(t, o)
	if err := r.Err(); err != nil {
		t.Error(err)
	}
	if r.States[confirmed] != 100 || r.States[cancelled] != 100 || r.Reasons["StockNotAvailable"] != 100 {
		t.Errorf("states %v, reasons %v", r.States, r.Reasons)
	}
}

// victim is the order, or the POST, that something happens to.
const victim = 37

// Every check is seen failing, and it alone.
func TestBrokenPromises(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		sabotage func(f *fake)
		options  func(o *Options)
		want     string
	}{
		"an order is never final": {
			sabotage: func(f *fake) { f.finish = func(o *fakeOrder) bool { return o.n != victim } },
			options:  func(o *Options) { o.Async = true }, // or the server would wait 5 s
			want:     acceptedFinal,
		},
		"an accepted order is gone": {
			sabotage: func(f *fake) {
				f.before = func(w http.ResponseWriter, _ *http.Request, n int) bool {
					if n == victim {
						w.WriteHeader(http.StatusCreated)
						_ = json.NewEncoder(w).Encode(order{ID: uuid.New(), Status: confirmed})
					}
					return n == victim
				}
			},
			want: acceptedFinal,
		},
		"an answer was not the last word": {
			sabotage: func(f *fake) {
				f.answered = func(o *fakeOrder) {
					if o.n == victim {
						o.Status = cancelled
						f.products[o.Items[0].ProductID].Stock += o.Items[0].Quantity
					}
				}
			},
			want: acceptedFinal,
		},
		"an order is refused": {
			sabotage: func(f *fake) {
				f.before = func(w http.ResponseWriter, _ *http.Request, n int) bool {
					if n == victim {
						problem(w, http.StatusUnprocessableEntity, "validation", "no")
					}
					return n == victim
				}
			},
			want: EveryAccepted,
		},
		"a repeated request is stored twice": {
			sabotage: func(f *fake) { f.before = f.storeAndForget },
			options:  func(o *Options) { o.Retry = true },
			want:     storedOnce,
		},
		"two orders get the same answer": {
			sabotage: func(f *fake) {
				f.before = func(_ http.ResponseWriter, r *http.Request, n int) bool {
					if n == victim || n == victim+1 {
						r.Header.Set("Idempotency-Key", "the same")
					}
					return false
				}
			},
			want: storedOnce,
		},
		"stock is taken twice": {
			sabotage: func(f *fake) {
				f.reserve = func(o *fakeOrder) bool {
					if o.n == victim {
						f.reserveAll(o)
					}
					return f.reserveAll(o)
				}
			},
			want: stockAgrees,
		},
		"a cancelled order keeps its stock": {
			sabotage: func(f *fake) {
				f.reserve = func(o *fakeOrder) bool { return f.reserveAll(o) && o.n != victim }
			},
			want: stockAgrees,
		},
		"a history lacks an order": {
			sabotage: func(f *fake) { f.tell = func(o *fakeOrder) bool { return o.n != victim } },
			want:     historyAgrees,
		},
		"a history tells another state": {
			sabotage: func(f *fake) {
				f.tell = func(o *fakeOrder) bool {
					if o.n == victim {
						o.Status = cancelled
					}
					return true
				}
			},
			want: historyAgrees,
		},
		"a history stays behind": {
			sabotage: func(f *fake) {
				f.tell = func(o *fakeOrder) bool {
					if o.n == victim {
						o.Status = pending
					}
					return true
				}
			},
			want: historyAgrees,
		},
		"an order is in another customer's history": {
			sabotage: func(f *fake) {
				f.tell = func(o *fakeOrder) bool {
					if o.n == victim {
						for _, other := range f.orders {
							if other.CustomerID != o.CustomerID {
								o.CustomerID = other.CustomerID
								break
							}
						}
					}
					return true
				}
			},
			want: historyAgrees,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := &fake{}
			c.sabotage(f)
			o := quick(f.serve(t))
			o.Settle = 300 * time.Millisecond // what is broken stays so
			if c.options != nil {
				c.options(&o)
			}
			r := mustRun(t, o)
			if broken := brokenChecks(r); !slices.Equal(broken, []string{c.want}) {
				t.Errorf("broken checks %q, want %q alone: %v", broken, c.want, r.Checks)
			}
			if r.Err() == nil {
				t.Error("no error from a report with broken checks")
			}
		})
	}
}

func brokenChecks(r Report) []string {
	var names []string
	for _, c := range failed(r.Checks) {
		names = append(names, c.Name)
	}
	return names
}

func TestRetries(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	tries := make(map[string]int)
	f := &fake{before: func(w http.ResponseWriter, r *http.Request, n int) bool {
		mu.Lock()
		defer mu.Unlock()
		key := r.Header.Get("Idempotency-Key")
		tries[key]++
		switch {
		case key == "" || tries[key] > 2:
			return false
		case tries[key] == 1 && n%2 == 0:
			unavailable(w)
			return true
		case tries[key] == 1:
			panic(http.ErrAbortHandler) // the connection is closed without an answer
		}
		return false
	}}
	o := quick(f.serve(t))
	o.Retry = true
	r := mustRun(t, o)
	if err := r.Err(); err != nil {
		t.Error(err)
	}
	if len(tries) != o.Orders {
		t.Errorf("%d keys for %d orders", len(tries), o.Orders)
	}
	away, closed := r.Errors["503 unavailable"], r.Errors["no answer"]
	if away.Retried+closed.Retried != o.Orders || away.Count != away.Retried || len(r.Errors) != 2 {
		t.Errorf("errors %v", r.Errors)
	}
	if away.First != "the database is away" {
		t.Errorf("first %q", away.First)
	}
}

// Without --retry, nothing is sent twice, and an order of which nobody knows whether it was stored is no stranger.
func TestUnclearOutcome(t *testing.T) {
	t.Parallel()
	f := &fake{
		forget: func(w http.ResponseWriter, _ *order) { problem(w, http.StatusBadGateway, "bad-gateway", "no answer") },
	}
	f.before = f.storeAndForget
	o := quick(f.serve(t))
	r := mustRun(t, o)
	broken := brokenChecks(r)
	want := map[string]Count{"502 bad-gateway": {Count: 1, First: "no answer"}}
	if !slices.Equal(broken, []string{EveryAccepted}) || !reflect.DeepEqual(r.Errors, want) || f.posts != o.Orders {
		t.Errorf("broken %q, errors %v, %d posts", broken, r.Errors, f.posts)
	}
}

// What is in the way of a run's products is tried again and counted, or ends the run if nothing is to be tried again.
func TestProductsAreTriedAgain(t *testing.T) {
	t.Parallel()
	for _, retry := range []bool{true, false} {
		f := &fake{away: 3}
		o := quick(f.serve(t))
		o.Retry = retry
		r, err := Run(t.Context(), o)
		switch {
		case retry && (err != nil || r.Err() != nil || r.Errors["503 unavailable"].Count != 3):
			t.Errorf("%v, %v, errors %v", err, r.Err(), r.Errors)
		case !retry && err == nil:
			t.Error("a run without its products is no failure")
		}
	}
}

// An answer that names the order it may have stored is followed: an order that is found is never sent again, one that
// is not only with its key.
func TestUnknownOutcome(t *testing.T) {
	t.Parallel()
	for name, stored := range map[string]bool{"stored": true, "not stored": false} {
		for _, retry := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, retry %t", name, retry), func(t *testing.T) {
				t.Parallel()
				f := &fake{forget: func(w http.ResponseWriter, o *order) {
					id := o.ID
					if !stored {
						id = uuid.New()
					}
					w.Header().Set("Location", "/orders/"+id.String())
					problem(w, http.StatusGatewayTimeout, "outcome-unknown", "look")
				}}
				f.before = f.storeAndForget
				if !stored {
					f.before = func(w http.ResponseWriter, _ *http.Request, n int) bool {
						if n == victim {
							f.forget(w, &order{})
						}
						return n == victim
					}
				}
				o := quick(f.serve(t))
				o.Retry, o.RetryFor = retry, time.Minute
				if !stored { // and given up
					o.RetryFor = time.Second
				}
				r := mustRun(t, o)
				var want []string
				posts := o.Orders
				switch {
				case !stored && retry:
					posts++
				case !stored:
					want = []string{EveryAccepted}
				}
				if broken := brokenChecks(r); !slices.Equal(broken, want) || f.posts != posts {
					t.Errorf("broken %q, want %q; %d posts; %v", broken, want, f.posts, r.Checks)
				}
				if n := total(r.Timeline).Unknown; n != 1 {
					t.Errorf("%d unknown outcomes in the timeline", n)
				}
			})
		}
	}
}

// A connection that does not come about has changed nothing, whatever was to be sent on it.
func TestWhatReachesNobodyIsTriedAgain(t *testing.T) {
	t.Parallel()
	f := &fake{}
	o := quick(f.serve(t))
	o.Retry = true
	var dials atomic.Int32
	o.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
		if dials.Add(1) <= 3 {
			return nil, &net.OpError{Op: "dial", Net: network, Err: os.ErrDeadlineExceeded}
		}
		return (&net.Dialer{}).DialContext(ctx, network, address)
	}
	r := mustRun(t, o)
	if broken := brokenChecks(r); len(broken) > 0 {
		t.Errorf("broken %q", broken)
	}
	tried := 0
	for _, count := range r.Errors {
		tried += count.Count
	}
	if tried == 0 {
		t.Error("no try failed")
	}
}

// Without a key only what the server says it has not done is sent again; a server that has done it all the same is
// found out, even when other orders of unknown outcome could account for the second one.
func TestKeyless(t *testing.T) {
	t.Parallel()
	t.Run("refused", func(t *testing.T) {
		t.Parallel()
		f := &fake{before: func(w http.ResponseWriter, r *http.Request, n int) bool {
			switch {
			case r.Header.Get("Idempotency-Key") != "":
				problem(w, http.StatusBadRequest, "validation", "a key")
			case n%3 == 0:
				w.Header().Set("Retry-After", "0")
				problem(w, http.StatusServiceUnavailable, "unavailable", "later")
			default:
				return false
			}
			return true
		}}
		o := quick(f.serve(t))
		o.Retry, o.Keyless, o.PerCustomer = true, true, 1
		r := mustRun(t, o)
		if err := r.Err(); err != nil {
			t.Error(err)
		}
		if seen := total(r.Timeline); seen.Accepted != o.Orders || seen.Final != o.Orders ||
			seen.Refused != r.Errors["503 unavailable"].Retried {
			t.Errorf("timeline %+v, errors %v", seen, r.Errors)
		}
	})
	t.Run("lied to", func(t *testing.T) {
		t.Parallel()
		f := &fake{}
		f.before = func(w http.ResponseWriter, r *http.Request, n int) bool {
			if n == victim+1 {
				problem(w, http.StatusBadGateway, "bad-gateway", "no answer")
			}
			return n == victim+1 || f.storeAndForget(w, r, n)
		}
		o := quick(f.serve(t))
		o.Retry, o.Keyless, o.PerCustomer, o.Settle = true, true, 1, 300*time.Millisecond
		r := mustRun(t, o)
		if broken := brokenChecks(r); !slices.Equal(broken, []string{EveryAccepted, storedOnce}) {
			t.Errorf("broken %q: %v", broken, r.Checks)
		}
	})
}

func total(seconds []Second) (all Second) {
	for _, s := range seconds {
		all.Accepted += s.Accepted
		all.Final += s.Final
		all.Refused += s.Refused
		all.Unknown += s.Unknown
		all.Failed += s.Failed
	}
	return all
}

// A server that stands still must not be hidden by a client that stands still with it.
func TestOpenLoopCountsTheStall(t *testing.T) {
	t.Parallel()
	const stall = 300 * time.Millisecond
	var once sync.Once
	f := &fake{before: func(_ http.ResponseWriter, _ *http.Request, n int) bool {
		if n == 100 {
			once.Do(func() { <-time.After(stall) })
		}
		return false
	}}
	o := quick(f.serve(t))
	o.Orders, o.Rate, o.Concurrency = 400, 1000, 1
	r := mustRun(t, o)
	// 300 orders came due behind the stall; a client that waited with the server would see one slow order of 400.
	if r.Latency.P50 < 20 || r.LateSends < 200 {
		t.Errorf("latency %+v, %d late sends", r.Latency, r.LateSends)
	}
}

func TestOpenLoopKeepsTheRate(t *testing.T) {
	t.Parallel()
	f := &fake{}
	o := quick(f.serve(t))
	o.Orders, o.Rate = 200, 400
	if r := mustRun(t, o); r.Seconds < 0.49 {
		t.Errorf("200 orders at 400/s took only %.2f s", r.Seconds)
	}
}

// One listing tells about all pending orders.
func TestAsyncAsksForManyAtOnce(t *testing.T) {
	t.Parallel()
	f := &fake{saga: 50 * time.Millisecond}
	o := quick(f.serve(t))
	o.Async, o.Poll, o.Concurrency = true, 50*time.Millisecond, 300
	mustRun(t, o)
	if f.lists > o.Orders/2 {
		t.Errorf("%d listings for %d orders", f.lists, o.Orders)
	}
}

func TestObserve(t *testing.T) {
	t.Parallel()
	f := &fake{saga: 5 * time.Millisecond}
	o := quick(f.serve(t))
	var stages []string
	var last Progress
	o.Observe = func(p Progress) {
		if p.Stage != last.Stage {
			stages = append(stages, p.Stage)
		}
		last = p
	}
	mustRun(t, o)
	if want := []string{"prepare", "load", "settle", "verify"}; !slices.Equal(stages, want) {
		t.Errorf("stages %q, want %q", stages, want)
	}
	if last.Accepted != o.Orders || last.Final != o.Orders || last.Elapsed <= 0 {
		t.Errorf("last %+v", last)
	}
}

func TestInterrupted(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	f := &fake{saga: time.Hour}
	f.before = func(http.ResponseWriter, *http.Request, int) bool { cancel(); return false }
	o := quick(f.serve(t))
	if _, err := Run(ctx, o); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.products) != 0 {
		t.Errorf("%d products are left", len(f.products))
	}
}

func TestNoServer(t *testing.T) {
	t.Parallel()
	o := quick("http://127.0.0.1:1")
	if _, err := Run(t.Context(), o); err == nil || !strings.Contains(err.Error(), "connection refused") {
		t.Errorf("error %v", err)
	}
}

func TestOptionsAreCheckedTogether(t *testing.T) {
	t.Parallel()
	o := Options{BaseURL: "nowhere", Rate: -1}
	_, err := Run(t.Context(), o)
	for _, want := range []string{"base URL", "orders", "concurrency", "rate", "products"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want %q in it", err, want)
		}
	}
}

func TestReport(t *testing.T) {
	t.Parallel()
	f := &fake{}
	r := mustRun(t, quick(f.serve(t)))
	r.CPU = &CPU{Processes: []ProcessCPU{{Name: "postgres", Per1000: 0.25}}, All: 0.25, LoadClient: 0.1}
	var text bytes.Buffer
	if err := r.Write(&text); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"300 orders", "p99", "Confirmed 300", "postgres", "0.250", "history agrees", "left out",
	} {
		if !strings.Contains(text.String(), want) {
			t.Errorf("no %q in\n%s", want, &text)
		}
	}
	encoded, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	if len(r.Orders) != r.Accepted {
		t.Errorf("%d orders, want those %d that were accepted", len(r.Orders), r.Accepted)
	}
	for _, o := range r.Orders {
		if o.Due > o.Accepted || o.Accepted > o.Final {
			t.Errorf("order due at %s, accepted at %s, final at %s", o.Due, o.Accepted, o.Final)
		}
	}
	r.Orders = nil // thousands of them are for programs alone
	var again Report
	if err := json.Unmarshal(encoded, &again); err != nil || !reflect.DeepEqual(r, again) {
		t.Errorf("%v: %+v, want %+v", err, again, r)
	}
}
