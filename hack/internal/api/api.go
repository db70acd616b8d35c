// Package api calls Orderflow's HTTP API, for people and for the programs here, and gets the access tokens for that.
package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"golang.org/x/oauth2"
)

// Problem is an answer other than 2xx, with what it says if it is a problem (RFC 9457).
type Problem struct {
	Status        int         `json:"-"`
	Header        http.Header `json:"-"`
	Answer        []byte      `json:"-"`
	Type          string
	Title, Detail string
	Errors        []struct{ Field, Detail string }
}

// Error is what a problem says, with no more of its fields than one reads, or the answer as it is.
func (p *Problem) Error() string {
	const most = 5
	if p.Title == "" {
		return fmt.Sprintf("status %d: %s", p.Status, bytes.TrimSpace(p.Answer))
	}
	text := fmt.Sprintf("status %d: %s", p.Status, p.Title)
	if p.Detail != "" {
		text += ": " + p.Detail
	}
	for i, field := range p.Errors {
		if i == most {
			return text + fmt.Sprintf("\n  and %d more", len(p.Errors)-most)
		}
		text += fmt.Sprintf("\n  %s: %s", field.Field, field.Detail)
	}
	return text
}

// ErrUnreadable is an answer of 2xx that is not what was asked for.
var ErrUnreadable = errors.New("the answer cannot be read")

// Call sends body as JSON, unless it is nil, and decodes the answer into out, unless that is nil; an io.Writer gets it
// as it is. The error is a *Problem for an answer other than 2xx. See Context for tokens.
func Call(ctx context.Context, method, url string, header http.Header, body, out any) (err error) {
	var content io.Reader = http.NoBody
	if body != nil {
		text, err := json.Marshal(body)
		if err != nil {
			return err
		}
		content = bytes.NewReader(text)
	}
	req, err := http.NewRequestWithContext(ctx, method, url, content)
	if err != nil {
		return err
	}
	req.Header = header.Clone()
	if req.Header == nil {
		req.Header = http.Header{}
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if header.Get("Idempotency-Key") != "" {
		req.GetBody = nil // else the transport sends it again by itself, and nobody can count that
	}
	res, err := oauth2.NewClient(ctx, nil).Do(req)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, res.Body.Close()) }()
	if to, ok := out.(io.Writer); ok && res.StatusCode/100 == 2 {
		_, err := io.Copy(to, res.Body)
		return err
	}
	answer, err := io.ReadAll(res.Body)
	if err != nil {
		return fmt.Errorf("read the answer: %w", err)
	}
	if res.StatusCode/100 != 2 {
		p := &Problem{Status: res.StatusCode, Header: res.Header, Answer: answer}
		_ = json.Unmarshal(answer, p) // else the answer speaks for itself
		return p
	}
	if out == nil {
		return nil
	}
	if err := json.Unmarshal(answer, out); err != nil {
		return fmt.Errorf("%w: %w", ErrUnreadable, err)
	}
	return nil
}

// Get reads what is at a URL.
func Get(ctx context.Context, url string, out any) error {
	return Call(ctx, http.MethodGet, url, nil, nil, out)
}

// Retry calls part until it succeeds or ctx is done; the error is the last one.
func Retry(ctx context.Context, pause time.Duration, part func() error) error {
	for {
		err := part()
		if err == nil {
			return nil
		}
		if over := Sleep(ctx, pause); over != nil {
			return errors.Join(over, err)
		}
	}
}

// Sleep returns the context's error, early, when that is done.
func Sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return ctx.Err()
	}
}

// Slug is the last part of a problem's type, such as "unavailable".
func (p *Problem) Slug() string { return p.Type[strings.LastIndexByte(p.Type, '/')+1:] }
