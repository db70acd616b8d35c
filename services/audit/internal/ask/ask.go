// Package ask asks the services about their books, through the gateway.
package ask

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"orderflow.internal/kit/audit"
)

const (
	callTimeout = 10 * time.Second // for one question: above the services' own limit
	lineTimeout = time.Minute      // for the next line of an answer: the services write one a second
	maxAnswer   = 8 << 20          // bytes of an answer
)

var errStalled = errors.New("the answer has stalled")

// Names of the services that keep books.
const (
	Orders    = "orders"
	Products  = "products"
	Customers = "customers"
)

// Queues returns those of the routes' queues whose consumer keeps books, so that
// it can be asked what it has handled, and the others.
func Queues(routes map[string][]string) (asked map[string][]string, others []string) {
	asked = map[string][]string{}
	for key, queues := range routes {
		for _, queue := range queues {
			if consumer, _, _ := strings.Cut(queue, "."); slices.Contains([]string{Orders, Products, Customers}, consumer) {
				asked[key] = append(asked[key], queue)
			} else {
				others = append(others, queue)
			}
		}
	}
	slices.Sort(others)
	return asked, others
}

// Client is how the services are reached.
type Client struct {
	base url.URL
	http *http.Client

	lineTimeout time.Duration // shorter in a test
}

// Transport is the one to ask with: digests do not shrink, and compressing them
// takes the gateway's time.
func Transport() http.RoundTripper {
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.DisableCompression = true
	return transport
}

// NewClient returns a client of the gateway at base. The requests are sent by
// sender, which knows how to show who asks.
func NewClient(base url.URL, sender *http.Client) *Client {
	return &Client{base: base, http: sender, lineTimeout: lineTimeout}
}

// Service is one that keeps books.
type Service struct {
	Name   string
	client *Client
}

// Service returns the service of that name.
func (c *Client) Service(name string) Service { return Service{name, c} }

// Events reads one page of what the service published.
func (s Service) Events(ctx context.Context, since, until time.Time, after string) (audit.Events, error) {
	query := url.Values{"since": {since.UTC().Format(time.RFC3339Nano)}, "until": {until.UTC().Format(time.RFC3339Nano)}}
	if after != "" {
		query.Set("after", after)
	}
	var page audit.Events
	err := s.call(ctx, http.MethodGet, "events", query, nil, &page)
	return page, err
}

// Handled asks which subjects' event the consumer of queue has not handled.
func (s Service) Handled(ctx context.Context, queue string, subjects []string) (audit.Answer, error) {
	var answer audit.Answer
	err := s.call(ctx, http.MethodPost, "handled", nil, audit.Question{Queue: queue, Subjects: subjects}, &answer)
	return answer, err
}

// Digest asks for the digest of a span, or of its first rows when limit is not 0.
func (s Service) Digest(ctx context.Context, span audit.Span, limit int) (audit.Digest, error) {
	query := spanQuery(span)
	if limit > 0 {
		query.Set("limit", fmt.Sprint(limit))
	}
	var d audit.Digest
	err := s.call(ctx, http.MethodGet, "digest", query, nil, &d)
	return d, err
}

// Prints asks for all prints of a span.
func (s Service) Prints(ctx context.Context, span audit.Span) (all []audit.Print, err error) {
	for {
		var page audit.Prints
		if err := s.call(ctx, http.MethodGet, "prints", spanQuery(span), nil, &page); err != nil {
			return nil, err
		}
		all = append(all, page.Prints...)
		if page.Next == uuid.Nil {
			return all, nil
		}
		span.After = page.Next
	}
}

func spanQuery(span audit.Span) url.Values {
	return url.Values{"after": {span.After.String()}, "until": {span.Until.String()}}
}

// Entries asks for what the service knows of some subjects, at most
// audit.MaxEntries.
func Entries[E any](ctx context.Context, s Service, ids []uuid.UUID) ([]E, error) {
	q := audit.EntriesQuestion{Subjects: make([]string, len(ids))}
	for i, id := range ids {
		q.Subjects[i] = id.String()
	}
	var answer audit.Entries[E]
	err := s.call(ctx, http.MethodPost, "entries", nil, q, &answer)
	return answer.Entries, err
}

// Lines asks a question whose answer comes as lines of JSON, and calls read with
// each of them.
func (s Service) Lines(ctx context.Context, question string, query url.Values,
	read func(line json.RawMessage) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stall := time.AfterFunc(s.client.lineTimeout, func() { cancel(errStalled) })
	defer stall.Stop()
	resp, err := s.send(ctx, http.MethodGet, question, query, nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	lines := json.NewDecoder(resp.Body)
	for {
		var line json.RawMessage
		err := lines.Decode(&line)
		if err == io.EOF { //nolint:errorlint // it comes as it is
			return nil
		}
		if err == nil {
			stall.Reset(s.client.lineTimeout)
			err = read(line)
		}
		if errors.Is(context.Cause(ctx), errStalled) {
			err = errStalled
		}
		if err != nil {
			return fmt.Errorf("ask %s: %s: %w", s.Name, question, err)
		}
	}
}

// tries is how often a question is asked of a service that is busy or away.
const tries = 3

func (s Service) call(ctx context.Context, method, question string, query url.Values, in, out any) error {
	var err error
	for try := range tries {
		var again bool
		if again, err = s.once(ctx, method, question, query, in, out); !again {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(time.Duration(try+1) * 300 * time.Millisecond):
		}
	}
	return err
}

func (s Service) once(ctx context.Context, method, question string,
	query url.Values, in, out any) (again bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	resp, err := s.send(ctx, method, question, query, in)
	if err != nil {
		return resp == nil || resp.StatusCode >= http.StatusInternalServerError ||
			resp.StatusCode == http.StatusTooManyRequests, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err == nil {
		err = json.Unmarshal(text, out)
	}
	if err != nil {
		return true, fmt.Errorf("ask %s: %s: %w", s.Name, question, err)
	}
	return false, nil
}

// send returns the answer if it is 200; with another one, whose body is closed,
// there is an error as well.
func (s Service) send(ctx context.Context, method, question string, query url.Values, in any) (*http.Response, error) {
	var body io.Reader
	if in != nil {
		text, err := json.Marshal(in)
		if err != nil {
			return nil, fmt.Errorf("ask %s: %w", s.Name, err)
		}
		body = bytes.NewReader(text)
	}
	at := s.client.base.JoinPath(s.Name, "audit", question)
	at.RawQuery = query.Encode()
	req, err := http.NewRequestWithContext(ctx, method, at.String(), body)
	if err != nil {
		return nil, fmt.Errorf("ask %s: %w", s.Name, err)
	}
	if in != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := s.client.http.Do(req)
	if err != nil {
		return nil, fmt.Errorf("ask %s: %w", s.Name, err)
	}
	if resp.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(io.LimitReader(resp.Body, 300)) // what there is of it
		_ = resp.Body.Close()
		return resp, fmt.Errorf("ask %s: %s answered %s: %s", s.Name, question, resp.Status, text)
	}
	return resp, nil
}
