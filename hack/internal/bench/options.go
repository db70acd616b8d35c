package bench

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/url"
	"time"

	"golang.org/x/oauth2"

	"orderflow.internal/hack/stack"
)

// Options describe one run. Start from Defaults.
type Options struct {
	BaseURL     string        // the gateway
	Orders      int           // how many orders to place
	Concurrency int           // closed loop: orders in flight; open loop: most requests in flight
	Rate        float64       // orders per second; 0 is the closed loop
	Products    int           // orders spread evenly over this many products
	Items       int           // different products per order
	Stock       int           // units of each product at the start; 0 is enough for every order
	Wait        int           // seconds an answer may wait for the final state; 0 leaves that to the server
	Async       bool          // post with respond-async and follow the orders by listing the pending ones
	Poll        time.Duration // shortest pause between two such listings: the resolution of an asynchronous latency
	Retry       bool          // after 503 with Retry-After and, thanks to an Idempotency-Key, after a lost connection
	Keyless     bool          // with Retry: send no key, and try again only what the server says it has not done
	AnswerLimit time.Duration // how long the server may be silent; a wait for the final state is part of it
	RetryFor    time.Duration // until an order that is tried, or whose outcome is unknown, counts as failed
	PerCustomer int           // orders that share a customer; 1 proves of each order that it is stored at most once
	Settle      time.Duration // how long after the last post everything must be final and in the histories
	Keep        bool          // leave the products behind

	Units []stack.Unit // the parts of the system whose CPU time is measured, if they are on this machine

	// Dial opens a connection to the base URL's host; nil dials it as it is.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)

	// TLS is for a base URL with https; nil trusts whom the system trusts.
	TLS *tls.Config

	// Tokens are sent with every request; nil for none.
	Tokens oauth2.TokenSource

	// Observe gets the state of the run every 200 ms and at each new stage, by one goroutine at a time. It may be nil.
	Observe func(Progress)
}

// Progress is how a run stands.
type Progress struct {
	Stage    string // "prepare", "load", "settle", "verify"
	Orders   int
	Accepted int
	Final    int
	Failed   int // given up
	Retries  int
	Elapsed  time.Duration // since the first order
}

// Defaults is a closed loop of 5,000 waiting orders over 100 products.
func Defaults() Options {
	return Options{
		BaseURL:     "http://127.0.0.1:5108",
		Orders:      5000,
		Concurrency: 64,
		Products:    100,
		Items:       1,
		Poll:        25 * time.Millisecond,
		AnswerLimit: 40 * time.Second, // the longest wait of Prefer and some
		RetryFor:    time.Minute,
		PerCustomer: maxPage,
		Settle:      time.Minute,
	}
}

// The limits of the order API.
const (
	maxPage  = 200
	maxStock = 1_000_000_000
)

func (o *Options) validate() error {
	var errs []error
	check := func(ok bool, format string, args ...any) {
		if !ok {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}
	base, err := url.Parse(o.BaseURL)
	check(err == nil && (base.Scheme == "http" || base.Scheme == "https") && base.Host != "",
		"base URL %q: want http://host:port", o.BaseURL)
	check(o.Orders > 0, "orders: want at least 1")
	check(o.Concurrency > 0, "concurrency: want at least 1")
	check(o.Rate >= 0, "rate: want 0 (closed loop) or more orders per second")
	check(o.Products > 0, "products: want at least 1")
	check(o.Items > 0 && o.Items <= o.Products, "items: want 1 to %d, the number of products", o.Products)
	check(o.Stock >= 0, "stock: want 0 (enough) or more units")
	check(o.stock() <= maxStock, "stock: at most %d units, not %d", maxStock, o.stock())
	check(o.Poll > 0, "poll: want more than 0")
	check(o.Wait >= 0 && (o.Wait == 0 || !o.Async), "wait: want 0 or more seconds, and none with an asynchronous run")
	check(o.AnswerLimit > time.Duration(o.Wait)*time.Second, "answer limit: want more than the wait")
	check(o.RetryFor > 0, "retry time: want more than 0")
	check(o.PerCustomer > 0 && o.PerCustomer <= maxPage, "orders per customer: want 1 to %d", maxPage)
	check(!o.Keyless || o.Retry, "without a key: only with retries")
	check(o.Settle > 0, "settle time: want more than 0")
	return errors.Join(errs...)
}

// stock is the units each product starts with.
func (o *Options) stock() int {
	if o.Stock > 0 {
		return o.Stock
	}
	return o.Orders
}

// keyed tells whether requests carry an Idempotency-Key.
func (o *Options) keyed() bool { return o.Retry && !o.Keyless }
