package routes

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"

	"orderflow.internal/kit/audit"
)

const (
	callTimeout = 5 * time.Second // for one question
	maxAnswer   = 1 << 20         // bytes of an answer
)

// service asks one service about its books.
type service struct {
	name string
	base url.URL // with the path of the service's audit
	http *http.Client
}

// events reads one page of what the service published.
func (s service) events(ctx context.Context, since, until time.Time, after string) (audit.Events, error) {
	query := url.Values{"since": {since.UTC().Format(time.RFC3339Nano)}, "until": {until.UTC().Format(time.RFC3339Nano)}}
	if after != "" {
		query.Set("after", after)
	}
	var page audit.Events
	err := s.call(ctx, http.MethodGet, "events?"+query.Encode(), nil, &page)
	return page, err
}

// handled asks which subjects' event the consumer of queue has not handled.
func (s service) handled(ctx context.Context, queue string, subjects []string) (audit.Answer, error) {
	var answer audit.Answer
	err := s.call(ctx, http.MethodPost, "handled", audit.Question{Queue: queue, Subjects: subjects}, &answer)
	return answer, err
}

func (s service) call(ctx context.Context, method, path string, in, out any) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	var body io.Reader
	if in != nil {
		text, err := json.Marshal(in)
		if err != nil {
			return fmt.Errorf("ask %s: %w", s.name, err)
		}
		body = bytes.NewReader(text)
	}
	req, err := http.NewRequestWithContext(ctx, method, s.base.String()+"/"+path, body)
	if err != nil {
		return fmt.Errorf("ask %s: %w", s.name, err)
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := s.http.Do(req)
	if err != nil {
		return fmt.Errorf("ask %s: %w", s.name, err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return fmt.Errorf("ask %s: %w", s.name, err)
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("ask %s: %s answered %s: %.300s", s.name, req.URL.Path, resp.Status, text)
	}
	if err := json.Unmarshal(text, out); err != nil {
		return fmt.Errorf("ask %s: %s: %w", s.name, req.URL.Path, err)
	}
	return nil
}
