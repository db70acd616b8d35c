package web

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"strconv"
	"time"

	"github.com/go-chi/chi/v5"

	"orderflow.internal/kit/fault"
)

// Problem is an RFC 9457 problem details object. It is an error, and may be
// returned by a [Handle] function as it is.
type Problem struct {
	Type     string       `json:"type"` // stable, one of the /problems/… of this package
	Title    string       `json:"title"`
	Status   int          `json:"status"`
	Detail   string       `json:"detail,omitempty"`
	Instance string       `json:"instance,omitempty"`
	Errors   []FieldError `json:"errors,omitempty"` // every bad field, not only the first

	retryAfter time.Duration
	location   string
	challenge  string
	logged     bool
	cause      error
}

// FieldError says what is wrong with one field, named as in
// "items[0].quantity", or with a parameter or header, named as it is sent.
type FieldError struct {
	Field  string `json:"field"`
	Detail string `json:"detail"`
}

func (p *Problem) Error() string {
	s := p.Title
	if p.Detail != "" {
		s += ": " + p.Detail
	}
	for _, e := range p.Errors {
		s += "; " + e.Field + " " + e.Detail
	}
	if p.cause != nil {
		s += ": " + p.cause.Error()
	}
	return s
}

// Unwrap returns the cause given with Because.
func (p *Problem) Unwrap() error { return p.cause }

// Because keeps err for the log. Clients do not see it.
func (p *Problem) Because(err error) *Problem {
	p.cause = err
	return p
}

// At tells the client where the resource in question is, or would be: the
// Location header.
func (p *Problem) At(location string) *Problem {
	p.location = location
	return p
}

// RetryIn is for how long the client is asked to stay away, instead of a second.
func (p *Problem) RetryIn(d time.Duration) *Problem {
	p.retryAfter = d
	return p
}

// Logged says that the cause is in the log already, once for all requests that it
// affects: [Handle] does not log the problem again.
func (p *Problem) Logged() *Problem {
	p.logged = true
	return p
}

// Challenge says in which way the client has to say who it is: the
// WWW-Authenticate header (RFC 6750, section 3).
func (p *Problem) Challenge(challenge string) *Problem {
	p.challenge = challenge
	return p
}

// statusClientGone is the code by which metrics and spans tell a request whose
// client went away before the answer; nobody receives it.
const statusClientGone = 499

// retryAfter is what a client is told to wait when something is down.
const retryAfter = time.Second

func newProblem(slug, title string, status int, detail string) *Problem {
	return &Problem{Type: "/problems/" + slug, Title: title, Status: status, Detail: detail}
}

// Invalid is a well-formed request whose fields break a rule: 422.
func Invalid(fields ...FieldError) *Problem {
	p := newProblem("validation", "The request is not valid", http.StatusUnprocessableEntity, "")
	p.Errors = fields
	return p
}

// BadParameter is a path, query or header parameter that cannot be read: 400.
func BadParameter(name, detail string) *Problem {
	return badParameters(FieldError{name, detail})
}

func badParameters(faults ...FieldError) *Problem {
	p := newProblem("invalid-parameter", "A parameter is not valid", http.StatusBadRequest, "")
	p.Errors = faults
	return p
}

// Unauthorized is a caller who has not said who it is, or not well: 401. It takes
// a Challenge.
func Unauthorized(detail string) *Problem {
	return newProblem("unauthorized", "An access token is needed", http.StatusUnauthorized, detail)
}

// Forbidden is a caller who may not do this: 403.
func Forbidden(detail string) *Problem {
	return newProblem("forbidden", "Not allowed", http.StatusForbidden, detail)
}

// TooManyRequests is a caller who has used up its share: 429. It takes a RetryIn.
func TooManyRequests(detail string) *Problem {
	return newProblem("too-many-requests", "Too many requests", http.StatusTooManyRequests, detail)
}

// NotFound is a resource that does not exist: 404.
func NotFound(detail string) *Problem {
	return newProblem("not-found", "Not found", http.StatusNotFound, detail)
}

// Conflict is a request that the state of the resource forbids: 409.
func Conflict(detail string) *Problem {
	return newProblem("conflict", "Conflict with the current state", http.StatusConflict, detail)
}

// PreconditionFailed is an If-Match that no longer holds: 412.
func PreconditionFailed(detail string) *Problem {
	return newProblem("precondition-failed", "The resource has changed", http.StatusPreconditionFailed, detail)
}

// IdempotencyMismatch is an Idempotency-Key used before with another request:
// 422.
func IdempotencyMismatch() *Problem {
	return newProblem("idempotency-mismatch", "The idempotency key was used for another request",
		http.StatusUnprocessableEntity, "Use a new Idempotency-Key for a different request.")
}

// BadGateway is an upstream whose connection broke, or whose answer cannot be
// passed on: 502.
func BadGateway(detail string) *Problem {
	return newProblem("bad-gateway", "Bad gateway", http.StatusBadGateway, detail)
}

// Unavailable is a dependency that is down for now: 503 with Retry-After.
func Unavailable(detail string) *Problem {
	return newProblem("unavailable", "Temporarily unavailable", http.StatusServiceUnavailable, detail).RetryIn(retryAfter)
}

// OutcomeUnknown is a request of which nobody can tell yet whether it took
// effect: 504, without Retry-After, because trying again may do it twice.
func OutcomeUnknown(detail string) *Problem {
	return newProblem("outcome-unknown", "It is unknown whether the request took effect",
		http.StatusGatewayTimeout, detail)
}

func malformed(field, detail string) *Problem {
	p := newProblem("malformed-json", "The body is not the JSON that is expected", http.StatusBadRequest, detail)
	if field != "" {
		p.Detail, p.Errors = "", []FieldError{{field, detail}}
	}
	return p
}

func tooLarge(limit int64) *Problem {
	return newProblem("too-large", "The body is too large", http.StatusRequestEntityTooLarge,
		fmt.Sprintf("At most %d bytes are accepted.", limit))
}

func unsupportedMediaType(detail string) *Problem {
	return newProblem("unsupported-media-type", "Unsupported media type", http.StatusUnsupportedMediaType, detail)
}

func methodNotAllowed() *Problem {
	return newProblem("method-not-allowed", "Method not allowed", http.StatusMethodNotAllowed, "")
}

func internal() *Problem {
	return newProblem("internal", "Internal error", http.StatusInternalServerError, "")
}

// FromFault turns the error of a dependency, such as the database, into a
// problem that promises no more than is known. Errors that are problems
// already, and those of kind Other, are returned as they are.
func FromFault(kind fault.Kind, err error) error {
	if errors.As(err, new(*Problem)) {
		return err
	}
	switch kind {
	case fault.Unavailable:
		return Unavailable("The database cannot be reached.").Because(err)
	case fault.Conflict:
		return Unavailable("The request lost against others at the same time.").Because(err)
	case fault.TooSlow:
		return Unavailable("The request took too long.").Because(err)
	case fault.Unknown:
		return OutcomeUnknown("Look before you try again.").Because(err)
	case fault.Other:
	}
	return err
}

// Error is the one table from errors to answers. It never returns nil and tells
// the client nothing about an error that it does not know.
func Error(err error) *Problem {
	var problem *Problem
	var tooLong *http.MaxBytesError
	switch {
	case errors.As(err, &problem):
		return problem
	case errors.As(err, &tooLong):
		return tooLarge(tooLong.Limit).Because(err)
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		return Unavailable("The request took too long.").Because(err)
	default:
		return internal().Because(err)
	}
}

// Write sends p as the answer.
func (p *Problem) Write(w http.ResponseWriter) {
	body, err := json.Marshal(p)
	if err != nil {
		panic(err) // strings and numbers only
	}
	h := w.Header()
	h.Set("Content-Type", "application/problem+json")
	h.Set("Cache-Control", "no-store")
	// Set for an answer that is not given now.
	for _, name := range []string{"Content-Length", "Content-Encoding", "ETag", "Location", "Last-Modified"} {
		h.Del(name)
	}
	if p.location != "" {
		h.Set("Location", p.location)
	}
	if p.challenge != "" {
		h.Set("WWW-Authenticate", p.challenge)
	}
	if p.retryAfter > 0 {
		// Up to half as much again, a second at least: those refused together must
		// not come back together.
		wait := p.retryAfter + rand.N(max(p.retryAfter/2, time.Second)) //nolint:gosec // jitter is no secret
		h.Set("Retry-After", strconv.Itoa(int(wait.Round(time.Second)/time.Second)))
	}
	w.WriteHeader(p.Status)
	_, _ = w.Write(body) // a client that is gone needs no answer
}

// Handle answers with the problem that [Error] makes of fn's error and logs it
// when the fault is ours (5xx), unless it is Logged. When fn had begun an
// answer, the connection is cut, so that the client does not take the part for
// the whole.
func Handle(fn func(w http.ResponseWriter, r *http.Request) error) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		err := fn(w, r)
		if err == nil {
			return
		}
		fail(w, r, err)
	}
}

func fail(w http.ResponseWriter, r *http.Request, err error) {
	problem := Error(err)
	if r.Context().Err() != nil && problem.Status >= 500 {
		// The client is gone; what failed did so for that reason.
		problem = &Problem{Type: problem.Type, Title: "Client closed the request", Status: statusClientGone}
	}
	if problem.Status >= 500 && !problem.logged {
		level := slog.LevelError
		if problem.Status == http.StatusServiceUnavailable {
			level = slog.LevelWarn
		}
		facts := append(pathIDs(r), slog.String("method", r.Method), slog.String("route", routePattern(r)),
			slog.Int("status", problem.Status), slog.Any("error", err))
		slog.LogAttrs(r.Context(), level, "request failed", facts...)
	}
	if rec := findRecorder(w); rec != nil && rec.status != 0 {
		panic(http.ErrAbortHandler)
	}
	problem.Write(w)
}

// routePattern is the route's pattern, "" when none matched.
func routePattern(r *http.Request) string {
	rctx := chi.RouteContext(r.Context())
	if rctx == nil {
		return ""
	}
	if len(rctx.RoutePatterns) == 1 {
		return rctx.RoutePatterns[0]
	}
	return rctx.RoutePattern()
}
