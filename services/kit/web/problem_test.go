package web

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"

	"orderflow.internal/kit/fault"
)

func TestProblemWrite(t *testing.T) {
	tests := map[string]struct {
		problem    *Problem
		status     int
		body       string
		retryAfter string
		location   string
	}{
		"fields": {
			problem: Invalid(FieldError{"items[0].quantity", "must be at least 1"}, FieldError{"customerId", "is required"}),
			status:  422,
			body: `{"type":"/problems/validation","title":"The request is not valid","status":422,"errors":[` +
				`{"field":"items[0].quantity","detail":"must be at least 1"},{"field":"customerId","detail":"is required"}]}`,
		},
		"detail": {
			problem: NotFound("There is no such order."),
			status:  404,
			body:    `{"type":"/problems/not-found","title":"Not found","status":404,"detail":"There is no such order."}`,
		},
		"unknown": {
			problem: OutcomeUnknown("Look before you try again.").At("/orders/7"),
			status:  504,
			body: `{"type":"/problems/outcome-unknown","title":"It is unknown whether the request took effect","status":504,` +
				`"detail":"Look before you try again."}`,
			location: "/orders/7",
		},
		"retry": {
			problem: Unavailable("The database cannot be reached.").Because(errors.New("dial tcp 10.0.0.1:5432")),
			status:  503,
			body: `{"type":"/problems/unavailable","title":"Temporarily unavailable","status":503,` +
				`"detail":"The database cannot be reached."}`,
			retryAfter: "1",
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			w := httptest.NewRecorder()
			w.Header().Set("ETag", `"7"`)
			w.Header().Set("Location", "/orders/of-an-answer-that-is-not-given")
			test.problem.Write(w)
			if w.Code != test.status || w.Body.String() != test.body {
				t.Errorf("%d %s\nwant %d %s", w.Code, w.Body, test.status, test.body)
			}
			h := w.Header()
			if h.Get("Content-Type") != "application/problem+json" || !soon(h.Get("Retry-After"), test.retryAfter) ||
				h.Get("ETag") != "" ||
				h.Get("Location") != test.location {
				t.Errorf("header %v", h)
			}
		})
	}
}

func TestErrorTable(t *testing.T) {
	tests := map[string]struct {
		err    error
		status int
		typ    string
	}{
		"problem":         {Conflict("x"), 409, "/problems/conflict"},
		"wrapped problem": {fmt.Errorf("cancel order: %w", PreconditionFailed("x")), 412, "/problems/precondition-failed"},
		"body too large":  {&http.MaxBytesError{Limit: 1}, 413, "/problems/too-large"},
		"deadline":        {fmt.Errorf("x: %w", context.DeadlineExceeded), 503, "/problems/unavailable"},
		"unknown":         {errors.New("secret"), 500, "/problems/internal"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			p := Error(test.err)
			if p.Status != test.status || p.Type != test.typ {
				t.Errorf("%d %s, want %d %s", p.Status, p.Type, test.status, test.typ)
			}
			if !strings.Contains(p.Error(), test.err.Error()) && !errors.As(test.err, new(*Problem)) {
				t.Errorf("%q lost its cause %q", p, test.err)
			}
			w := httptest.NewRecorder()
			p.Write(w)
			if p.Status >= 500 && strings.Contains(w.Body.String(), test.err.Error()) {
				t.Errorf("answer tells %s", w.Body)
			}
		})
	}
}

// soon reports whether a Retry-After is want, or the second more that jitter may
// add to it.
func soon(got, want string) bool { return got == want || want == "1" && got == "2" }

func TestRetryAfterIsSpread(t *testing.T) {
	seen := map[int]bool{}
	for range 500 {
		w := httptest.NewRecorder()
		Unavailable("").RetryIn(10 * time.Second).Write(w)
		seconds, err := strconv.Atoi(w.Header().Get("Retry-After"))
		if err != nil || seconds < 10 || seconds > 15 {
			t.Fatalf("Retry-After is %q, want 10 to 15", w.Header().Get("Retry-After"))
		}
		seen[seconds] = true
	}
	if len(seen) != 6 {
		t.Errorf("of 10 to 15 only %v", seen)
	}
}

func TestFaultPromisesNoMoreThanIsKnown(t *testing.T) {
	cause := errors.New("connection reset")
	for kind, want := range map[fault.Kind]struct {
		status     int
		typ        string
		retryAfter string
	}{
		fault.Unavailable: {503, "/problems/unavailable", "1"},
		fault.Conflict:    {503, "/problems/unavailable", "1"},
		fault.TooSlow:     {503, "/problems/unavailable", "1"},
		fault.Unknown:     {504, "/problems/outcome-unknown", ""},
		fault.Other:       {500, "/problems/internal", ""},
	} {
		p := Error(FromFault(kind, cause))
		w := httptest.NewRecorder()
		p.Write(w)
		if p.Status != want.status || p.Type != want.typ || !soon(w.Header().Get("Retry-After"), want.retryAfter) ||
			!errors.Is(p, cause) {
			t.Errorf("%s: %d %s, Retry-After %q, cause %v", kind, p.Status, p.Type, w.Header().Get("Retry-After"), p.Unwrap())
		}
	}
	if err := FromFault(fault.Other, nil); err != nil {
		t.Errorf("no error became %v", err)
	}
	known := Conflict("x").Because(cause)
	if err := FromFault(fault.Unavailable, known); !errors.Is(err, known) || Error(err) != known {
		t.Errorf("a problem became %v", err)
	}
}

// captureLog returns what is logged until the test ends.
func captureLog(t *testing.T) *bytes.Buffer {
	t.Helper()
	var buf bytes.Buffer
	previous := slog.Default()
	slog.SetDefault(slog.New(slog.NewTextHandler(&buf, nil)))
	t.Cleanup(func() { slog.SetDefault(previous) })
	return &buf
}

func TestHandleLogsOnlyFailures(t *testing.T) {
	log := captureLog(t)
	router := NewRouter()
	router.Get("/orders/{id}", Handle(func(w http.ResponseWriter, r *http.Request) error {
		switch r.URL.Query().Get("how") {
		case "client":
			return NotFound("x")
		case "down":
			return Unavailable("x")
		case "logged":
			return Unavailable("x").Logged()
		default:
			return fmt.Errorf("load order 7: %w", errors.New("disk on fire"))
		}
	}))

	get := func(path string) *httptest.ResponseRecorder {
		w := httptest.NewRecorder()
		router.ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
		return w
	}
	if w := get("/orders/7?how=client"); w.Code != 404 || log.Len() > 0 {
		t.Errorf("%d, logged %s", w.Code, log)
	}
	if w := get("/orders/7?how=logged"); w.Code != 503 || log.Len() > 0 {
		t.Errorf("%d, logged %s", w.Code, log)
	}
	if w := get("/orders/7"); w.Code != 500 || strings.Contains(w.Body.String(), "fire") {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	line := log.String()
	for _, want := range []string{
		"level=ERROR", "method=GET", "route=/orders/{id}", "status=500", `error="load order 7: disk on fire"`,
	} {
		if !strings.Contains(line, want) {
			t.Errorf("log lacks %s: %s", want, line)
		}
	}
	if n := strings.Count(line, "\n"); n != 1 {
		t.Errorf("%d lines for one failure", n)
	}
	log.Reset()
	if w := get("/orders/7?how=down"); w.Code != 503 || !strings.Contains(log.String(), "level=WARN") {
		t.Errorf("%d, logged %s", w.Code, log)
	}
}

func TestHandleOfGoneClient(t *testing.T) {
	log := captureLog(t)
	ctx, cancel := context.WithCancel(context.Background())
	h := Handle(func(_ http.ResponseWriter, r *http.Request) error {
		cancel()
		return fmt.Errorf("query: %w", r.Context().Err())
	})
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequestWithContext(ctx, http.MethodGet, "/", nil))
	if w.Code != statusClientGone || log.Len() > 0 {
		t.Errorf("%d, logged %s", w.Code, log)
	}
}

func TestHandleCutsOffABegunAnswer(t *testing.T) {
	log := captureLog(t)
	router := NewRouter()
	router.Get("/", Handle(func(w http.ResponseWriter, _ *http.Request) error {
		if _, err := w.Write([]byte("half ")); err != nil {
			return err
		}
		if err := http.NewResponseController(w).Flush(); err != nil {
			return err
		}
		return errors.New("the other half is gone")
	}))
	server := httptest.NewServer(router)
	defer server.Close()
	resp, err := http.Get(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var body bytes.Buffer
	if _, err := body.ReadFrom(resp.Body); err == nil {
		t.Errorf("the half answer %q looks whole", body.String())
	}
	server.Close()
	if !strings.Contains(log.String(), "the other half is gone") || strings.Contains(log.String(), "panic") {
		t.Errorf("logged %s", log)
	}
}
