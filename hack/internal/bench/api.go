package bench

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"
	"golang.org/x/oauth2"
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
	Reserved   int       `json:"reserved,omitempty"`
}

type api struct {
	transport   *http.Transport
	tokens      oauth2.TokenSource // nil: none are needed
	base        *url.URL
	failedReads tally
}

// newAPI returns a client whose connections, at most conns busy at once, all stay open between requests. It gives up on
// a server that is silent for longer than the answer limit.
func newAPI(base string, conns int, answerLimit time.Duration) (*api, error) {
	u, err := url.Parse(strings.TrimSuffix(base, "/"))
	if err != nil {
		return nil, fmt.Errorf("base URL: %w", err)
	}
	return &api{
		base: u,
		transport: &http.Transport{
			MaxIdleConnsPerHost:   conns,
			DisableCompression:    true,
			ResponseHeaderTimeout: answerLimit,
			WriteBufferSize:       2 << 10,
			ReadBufferSize:        2 << 10,
		},
	}, nil
}

func (a *api) close() { a.transport.CloseIdleConnections() }

// statusError is an answer other than 2xx.
type statusError struct {
	code       int
	retryAfter string
	location   string
	problem    string // its type's last part, such as "unavailable"
	detail     string
}

func (e *statusError) Error() string {
	if e.detail == "" {
		return e.kind()
	}
	return e.kind() + ": " + e.detail
}

func (e *statusError) kind() string {
	if e.problem == "" {
		return strconv.Itoa(e.code)
	}
	return strconv.Itoa(e.code) + " " + e.problem
}

// send does one request and decodes a 2xx answer into out (nil: not wanted). The buffer is the caller's to use again.
func (a *api) send(req *http.Request, buf *bytes.Buffer, out any) error {
	if a.tokens != nil {
		token, err := a.tokens.Token()
		if err != nil {
			return fmt.Errorf("get a token: %w", err)
		}
		req.Header = req.Header.Clone() // the transport may still be reading that of another request
		token.SetAuthHeader(req)
	}
	resp, err := a.transport.RoundTrip(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	buf.Reset()
	if _, err := buf.ReadFrom(resp.Body); err != nil {
		return fmt.Errorf("read answer: %w", err)
	}
	if resp.StatusCode/100 != 2 {
		return newStatusError(resp, buf.Bytes())
	}
	if out == nil {
		return nil
	}
	if err := json.Unmarshal(buf.Bytes(), out); err != nil {
		return fmt.Errorf("decode answer: %w", err)
	}
	return nil
}

func newStatusError(resp *http.Response, body []byte) error {
	e := &statusError{code: resp.StatusCode, retryAfter: resp.Header.Get("Retry-After"),
		location: resp.Header.Get("Location")}
	var problem struct {
		Type, Title, Detail string
		Errors              []struct{ Field, Detail string }
	}
	if json.Unmarshal(body, &problem) == nil {
		e.problem = problem.Type[strings.LastIndexByte(problem.Type, '/')+1:]
		e.detail = cmp.Or(problem.Detail, problem.Title)
		for _, field := range problem.Errors {
			e.detail += fmt.Sprintf("; %s %s", field.Field, field.Detail)
		}
	}
	return e
}

func (a *api) request(ctx context.Context, method, path string, query url.Values, body any) (*http.Request, error) {
	u := *a.base
	u.Path += path
	u.RawQuery = query.Encode()
	var content io.Reader
	if body != nil {
		encoded, err := json.Marshal(body)
		if err != nil {
			return nil, err
		}
		content = bytes.NewReader(encoded)
	}
	req, err := http.NewRequestWithContext(ctx, method, u.String(), content)
	if err == nil && body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	return req, err
}

// get reads a resource, again and again while the server is away or failing, until ctx is done.
func (a *api) get(ctx context.Context, path string, query url.Values, out any) error {
	var buf bytes.Buffer
	for pause := 50 * time.Millisecond; ; pause = min(2*pause, time.Second) {
		req, err := a.request(ctx, http.MethodGet, path, query, nil)
		if err != nil {
			return err
		}
		err = a.send(req, &buf, out)
		if err == nil {
			return nil
		}
		if ctx.Err() == nil {
			a.failedReads.add(err, passing(err))
		}
		if !passing(err) || !sleep(ctx, pause) {
			return fmt.Errorf("get %s: %w", path, err)
		}
	}
}

// listOrders walks all pages of a list of orders.
func (a *api) listOrders(ctx context.Context, path string, query url.Values) ([]order, error) {
	q := url.Values{"limit": {strconv.Itoa(maxPage)}}
	for k, v := range query {
		q[k] = v
	}
	var all []order
	for {
		var page struct {
			Orders []order `json:"orders"`
			Next   string  `json:"next"`
		}
		if err := a.get(ctx, path, q, &page); err != nil {
			return nil, err
		}
		all = append(all, page.Orders...)
		if page.Next == "" {
			return all, nil
		}
		q.Set("after", page.Next)
	}
}

func (a *api) ordersOf(ctx context.Context, customer uuid.UUID) ([]order, error) {
	return a.listOrders(ctx, "/orders", url.Values{"customerId": {customer.String()}})
}

// find reads the order at a path of the API until it is there. Not found in time is no error but an order without an
// id.
func (a *api) find(ctx context.Context, path string, limit time.Duration) (o order, err error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	for pause := 100 * time.Millisecond; ; pause = min(2*pause, time.Second) {
		err = a.get(ctx, path, nil, &o)
		if status, ok := errors.AsType[*statusError](err); !ok || status.code != http.StatusNotFound {
			return o, err
		}
		if !sleep(ctx, pause) {
			return order{}, nil
		}
	}
}

func (a *api) history(ctx context.Context, customer uuid.UUID) ([]order, error) {
	return a.listOrders(ctx, "/customers/"+customer.String()+"/orders", nil)
}

func (a *api) product(ctx context.Context, id uuid.UUID) (product, error) {
	var p product
	return p, a.get(ctx, "/products/"+id.String(), nil, &p)
}

func (a *api) createProduct(ctx context.Context, p product) (product, error) {
	var made product
	req, err := a.request(ctx, http.MethodPost, "/products", nil, p)
	if err == nil {
		err = a.send(req, new(bytes.Buffer), &made)
	}
	if err != nil {
		return made, fmt.Errorf("create product: %w", err)
	}
	return made, nil
}

func (a *api) deleteProduct(ctx context.Context, id uuid.UUID) error {
	req, err := a.request(ctx, http.MethodDelete, "/products/"+id.String(), nil, nil)
	if err == nil {
		err = a.send(req, new(bytes.Buffer), nil)
	}
	if err != nil {
		return fmt.Errorf("delete product %s: %w", id, err)
	}
	return nil
}

// sleep returns false, early, when ctx is done.
func sleep(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return !over(ctx)
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}

func over(ctx context.Context) bool { return ctx.Err() != nil }
