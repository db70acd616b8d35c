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

// maxAnswer bounds what Get reads, in bytes.
const maxAnswer = 64 << 10

// Get reads the JSON at path into out, for an answer that the gateway itself
// puts together, in the name of who sent authorization ("" for nobody). A refusal of the service comes back as its
// *web.Problem, a failure on the way as the one that Handler would answer with.
func (s *Service) Get(ctx context.Context, path, authorization string, out any) error {
	if !s.requests.enter() {
		return web.Unavailable("The gateway has too many such requests in hand.")
	}
	defer s.requests.leave()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.prefix+path, nil)
	if err != nil {
		return fmt.Errorf("ask %s for %s: %w", s.name, path, err)
	}
	req.Header.Set("Accept", "application/json")
	if authorization != "" {
		req.Header.Set("Authorization", authorization)
	}
	resp, err := s.balancer.RoundTrip(req)
	if err != nil {
		return s.problem(err)
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err = errors.Join(err, resp.Body.Close()); err != nil {
		return s.problem(err)
	}
	mediaType, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type")) // "" is none of ours
	refused := &web.Problem{}
	switch {
	case resp.StatusCode == http.StatusOK && json.Unmarshal(body, out) == nil:
		return nil
	case resp.StatusCode == http.StatusServiceUnavailable:
		return web.Unavailable("The " + s.name + " service is not ready.")
	case mediaType == "application/problem+json" && json.Unmarshal(body, refused) == nil &&
		refused.Status == resp.StatusCode:
		return refused
	}
	return s.problem(fmt.Errorf("%s answered %s with %s", path, resp.Status, mediaType))
}
