// Package webtest holds a service's answers against its OpenAPI document. It
// is stricter than the document: in a test an answer may have no field and no
// status that the document does not list, though clients must bear both.
package webtest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"mime"
	"net/http"
	"net/mail"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/getkin/kin-openapi/openapi3filter"
	"github.com/getkin/kin-openapi/routers"
	"github.com/getkin/kin-openapi/routers/gorillamux"
)

// Validator checks exchanges against one document. It is safe for concurrent
// use.
type Validator struct {
	router  routers.Router
	schemas openapi3.Schemas

	mu     sync.Mutex
	unseen map[string]bool // "operationId status", documented and not yet answered
}

var formats = openapi3.WithStringFormatValidators(map[string]openapi3.StringFormatValidator{
	// The library's own uuid format knows no version 7.
	"uuid": openapi3.NewRegexpFormatValidator(`^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$`),
	"email": openapi3.NewCallbackValidator(func(s string) error {
		_, err := mail.ParseAddress(s)
		return err
	}),
	"uri-reference": openapi3.NewCallbackValidator(func(s string) error {
		_, err := url.Parse(s)
		return err
	}),
})

// New reads an OpenAPI 3.0 document and fails the test when it is not valid.
func New(t testing.TB, openapiFile string) *Validator {
	t.Helper()
	doc, err := openapi3.NewLoader().LoadFromFile(openapiFile)
	if err != nil {
		t.Fatalf("read %s: %v", openapiFile, err)
	}
	if err := doc.Validate(context.Background(), openapi3.EnableExamplesValidation()); err != nil {
		t.Fatalf("%s: %v", openapiFile, err)
	}
	v := &Validator{unseen: map[string]bool{}}
	if doc.Components != nil {
		v.schemas = doc.Components.Schemas
	}
	closed := false
	err = doc.WalkSchemas(func(_ string, schema *openapi3.SchemaRef) error {
		s := schema.Value
		if len(s.Properties) > 0 && s.AdditionalProperties.Has == nil && s.AdditionalProperties.Schema == nil {
			s.AdditionalProperties.Has = &closed
		}
		return nil
	})
	if err != nil {
		t.Fatalf("close the schemas of %s: %v", openapiFile, err)
	}
	for _, path := range doc.Paths.Map() {
		for _, operation := range path.Operations() {
			for status := range operation.Responses.Map() {
				if status != "default" {
					v.unseen[operation.OperationID+" "+status] = true
				}
			}
		}
	}
	doc.Servers = nil // a test's server listens anywhere
	if v.router, err = gorillamux.NewRouter(doc); err != nil {
		t.Fatalf("route %s: %v", openapiFile, err)
	}
	return v
}

// Check fails the test when the answer is not one the document has for the
// request, or when a request that the document forbids succeeded. body is what
// was read from resp; of an event stream it may be a part.
func (v *Validator) Check(t testing.TB, req *http.Request, resp *http.Response, body []byte) {
	t.Helper()
	if err := v.check(req, nil, resp, body); err != nil {
		t.Errorf("%s %s answered %d, and that is not in the document: %v\n%s",
			req.Method, req.URL, resp.StatusCode, err, excerpt(body))
	}
}

// Unanswered lists the documented answers that were not seen, as
// "operationId status", sorted.
func (v *Validator) Unanswered() []string {
	v.mu.Lock()
	defer v.mu.Unlock()
	return slices.Sorted(maps.Keys(v.unseen))
}

// Transport checks every exchange that goes through next (nil is
// http.DefaultTransport). Events of a stream are checked as they are read.
func (v *Validator) Transport(t testing.TB, next http.RoundTripper) http.RoundTripper {
	if next == nil {
		next = http.DefaultTransport
	}
	return roundTripper(func(req *http.Request) (*http.Response, error) {
		var sent []byte
		if req.Body != nil && req.Body != http.NoBody {
			var err error
			if sent, err = io.ReadAll(req.Body); err != nil {
				return nil, err
			}
			if err := req.Body.Close(); err != nil {
				return nil, err
			}
			req = req.Clone(req.Context())
			req.Body = io.NopCloser(bytes.NewReader(sent))
		}
		resp, err := next.RoundTrip(req)
		if err != nil {
			return nil, err
		}
		if isStream(resp) {
			if err := v.check(req, sent, resp, nil); err != nil {
				t.Errorf("%s %s: %v", req.Method, req.URL, err)
			}
			resp.Body = &stream{ReadCloser: resp.Body, t: t, schema: v.eventSchema(req)}
			return resp, nil
		}
		body, err := io.ReadAll(resp.Body)
		if closeErr := resp.Body.Close(); err == nil {
			err = closeErr
		}
		if err != nil {
			return nil, err
		}
		resp.Body = io.NopCloser(bytes.NewReader(body))
		if err := v.check(req, sent, resp, body); err != nil {
			t.Errorf("%s %s answered %d, and that is not in the document: %v\n%s",
				req.Method, req.URL, resp.StatusCode, err, excerpt(body))
		}
		return resp, nil
	})
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(req *http.Request) (*http.Response, error) { return f(req) }

func (v *Validator) check(req *http.Request, sent []byte, resp *http.Response, body []byte) error {
	routed := req
	if req.Method == http.MethodHead { // documented as GET
		routed = req.Clone(req.Context())
		routed.Method = http.MethodGet
	}
	route, params, err := v.router.FindRoute(routed)
	if err != nil {
		return v.checkUnrouted(req, resp, body, err)
	}
	status := fmt.Sprint(resp.StatusCode)
	if route.Operation.Responses.Value(status) == nil {
		return errors.New("the status is not documented")
	}
	v.mu.Lock()
	delete(v.unseen, route.Operation.OperationID+" "+status)
	v.mu.Unlock()

	options := &openapi3filter.Options{
		SchemaValidationOptions: []openapi3.SchemaValidationOption{formats, openapi3.EnableFormatValidation()},
		SkipSettingDefaults:     true,
		MultiError:              true,
		ExcludeResponseBody:     isStream(resp),
		// Who may call what depends on more than the document says, and has a
		// test of its own.
		AuthenticationFunc: openapi3filter.NoopAuthenticationFunc,
	}
	copied := req.Clone(req.Context())
	copied.Body = http.NoBody
	switch {
	case sent != nil:
		copied.Body = io.NopCloser(bytes.NewReader(sent))
	case req.GetBody != nil:
		if copied.Body, err = req.GetBody(); err != nil {
			return fmt.Errorf("read the request again: %w", err)
		}
	case req.Body != nil && req.Body != http.NoBody:
		options.ExcludeRequestBody = true // it was read by whom it was sent to
	}
	request := &openapi3filter.RequestValidationInput{
		Request: copied, PathParams: params, Route: route, Options: options,
	}
	if resp.StatusCode < 300 {
		if err := openapi3filter.ValidateRequest(req.Context(), request); err != nil {
			return fmt.Errorf("the request is forbidden and yet succeeded: %w", err)
		}
	}
	if (resp.StatusCode == http.StatusNoContent || req.Method == http.MethodHead) && len(body) > 0 {
		return errors.New("there is a body")
	}
	response := &openapi3filter.ResponseValidationInput{
		RequestValidationInput: request, Status: resp.StatusCode, Header: resp.Header, Options: options,
	}
	response.SetBodyBytes(body)
	return openapi3filter.ValidateResponse(req.Context(), response)
}

// checkUnrouted: what is not in the document is refused with a problem.
func (v *Validator) checkUnrouted(req *http.Request, resp *http.Response, body []byte, reason error) error {
	if resp.StatusCode != http.StatusNotFound && resp.StatusCode != http.StatusMethodNotAllowed {
		return reason
	}
	if kind := resp.Header.Get("Content-Type"); kind != "application/problem+json" {
		return fmt.Errorf("content type %q is not application/problem+json", kind)
	}
	if req.Method == http.MethodHead {
		return nil
	}
	return visit(v.schemas["Problem"], body)
}

func isStream(resp *http.Response) bool {
	kind, _, err := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	return err == nil && (kind == "text/event-stream" || kind == "application/x-ndjson")
}

func excerpt(body []byte) string {
	const most = 2000
	if len(body) > most {
		return strings.ToValidUTF8(string(body[:most]), "") + "…"
	}
	return string(body)
}
