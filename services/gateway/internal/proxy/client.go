package proxy

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"

	"orderflow.internal/kit/web"
)

// maxAnswer bounds what a Client reads, in bytes.
const maxAnswer = 1 << 20

// Client asks a service for what the gateway makes an answer of its own from.
type Client struct {
	proxy    proxy
	prefix   string
	balancer *balancer
}

// NewClient returns a client of the service's instances.
func NewClient(cfg Config) *Client {
	return &Client{proxy: proxy{service: cfg.Service}, prefix: cfg.Prefix, balancer: newBalancer(cfg)}
}

// Get reads the JSON at path into out. A refusal of the service comes back as
// its *web.Problem, a failure on the way as the one that New's handler answers
// with.
func (c *Client) Get(ctx context.Context, path string, out any) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.prefix+path, nil)
	if err != nil {
		return fmt.Errorf("ask %s for %s: %w", c.proxy.service, path, err)
	}
	req.Header.Set("Accept", "application/json")
	resp, err := c.balancer.RoundTrip(req)
	if err != nil {
		return c.proxy.problem(err)
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err = errors.Join(err, resp.Body.Close()); err != nil {
		return c.proxy.problem(err)
	}
	mediaType, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type")) // "" is none of ours
	refused := &web.Problem{}
	switch {
	case resp.StatusCode == http.StatusOK && json.Unmarshal(body, out) == nil:
		return nil
	case resp.StatusCode == http.StatusServiceUnavailable:
		return web.Unavailable("The " + c.proxy.service + " service is not ready.")
	case mediaType == "application/problem+json" && json.Unmarshal(body, refused) == nil && refused.Status == resp.StatusCode:
		return refused
	}
	return c.proxy.problem(fmt.Errorf("%s answered %s with %s", path, resp.Status, mediaType))
}
