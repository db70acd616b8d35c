package bench

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"
	"golang.org/x/oauth2"

	"orderflow.internal/hack/internal/api"
)

type state string

const (
	pending   state = "Pending"
	confirmed state = "Confirmed"
	cancelled state = "Cancelled"
)

func (s state) final() bool { return s == confirmed || s == cancelled }

type item struct {
	ProductID uuid.UUID `json:"productId"`
	Quantity  int       `json:"quantity"`
}

// order is what the API tells about an order, in an answer, a list or a history.
type order struct {
	ID     uuid.UUID `json:"orderId"`
	Status state     `json:"status"`
	Reason string    `json:"reason"`
	Items  []item    `json:"items"`

	customer uuid.UUID // whose list or history it was found in
}

type product struct {
	ID         uuid.UUID `json:"productId"`
	Name       string    `json:"name"`
	PriceCents int64     `json:"priceCents"`
	Stock      int       `json:"stock"`
}

type client struct {
	http        *http.Client
	transport   *http.Transport
	base        string
	failedReads tally
}

// newClient returns a client whose connections, at most as many as requests, all stay open between them.
func newClient(o *Options) *client {
	c := &client{base: strings.TrimSuffix(o.BaseURL, "/"), transport: &http.Transport{
		MaxIdleConnsPerHost: o.Concurrency + readers + 2, DisableCompression: true, ResponseHeaderTimeout: o.AnswerLimit,
		DialContext: o.Dial, TLSClientConfig: o.TLS,
	}}
	c.http = &http.Client{Transport: c.transport}
	if o.Tokens != nil {
		c.http.Transport = &oauth2.Transport{Source: o.Tokens, Base: c.transport}
	}
	return c
}

func (c *client) call(ctx context.Context, method, path string, header http.Header, body, out any) error {
	return api.Call(context.WithValue(ctx, oauth2.HTTPClient, c.http), method, c.base+path, header, body, out)
}

// get reads a resource, again and again while the server is away or failing, until ctx is done.
func (c *client) get(ctx context.Context, path string, out any) error {
	for pause := 50 * time.Millisecond; ; pause = min(2*pause, time.Second) {
		err := c.call(ctx, http.MethodGet, path, nil, nil, out)
		if err == nil {
			return nil
		}
		if ctx.Err() == nil {
			c.failedReads.add(err, passing(err))
		}
		if !passing(err) || api.Sleep(ctx, pause) != nil {
			return fmt.Errorf("get %s: %w", path, err)
		}
	}
}

// listOrders walks all pages of a list of orders.
func (c *client) listOrders(ctx context.Context, path string, query url.Values) (all []order, err error) {
	query.Set("limit", strconv.Itoa(maxPage))
	for {
		var page struct {
			Orders []order `json:"orders"`
			Next   string  `json:"next"`
		}
		if err := c.get(ctx, path+"?"+query.Encode(), &page); err != nil {
			return nil, err
		}
		all = append(all, page.Orders...)
		if page.Next == "" {
			return all, nil
		}
		query.Set("after", page.Next)
	}
}

func (c *client) ordersOf(ctx context.Context, customer uuid.UUID) ([]order, error) {
	return c.listOrders(ctx, "/orders", url.Values{"customerId": {customer.String()}})
}

// find reads the order at a path of the API until it is there. Not found in time is no error but an order without an
// id.
func (c *client) find(ctx context.Context, path string, limit time.Duration) (o order, err error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	for pause := 100 * time.Millisecond; ; pause = min(2*pause, time.Second) {
		err = c.get(ctx, path, &o)
		problem, ok := errors.AsType[*api.Problem](err)
		missing := ok && problem.Status == http.StatusNotFound
		if err == nil || !missing && !passing(err) {
			return o, err
		}
		if api.Sleep(ctx, pause) != nil {
			if missing {
				err = nil
			}
			return order{}, err
		}
	}
}

func (c *client) history(ctx context.Context, customer uuid.UUID) ([]order, error) {
	return c.listOrders(ctx, "/customers/"+customer.String()+"/orders", url.Values{})
}

func (c *client) product(ctx context.Context, id uuid.UUID) (p product, err error) {
	err = c.get(ctx, "/products/"+id.String(), &p)
	return p, err
}

func (c *client) createProduct(ctx context.Context, p product) (made product, err error) {
	err = c.call(ctx, http.MethodPost, "/products", nil, p, &made)
	return made, err
}

func (c *client) deleteProduct(ctx context.Context, id uuid.UUID) error {
	return c.call(ctx, http.MethodDelete, "/products/"+id.String(), nil, nil, nil)
}
