package systemtest

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"orderflow.internal/hack/stack"
)

// readiness is one answer of a service's /readyz.
type readiness struct {
	at       time.Time
	took     time.Duration
	status   int // 0: no answer
	NotReady map[string]string
	Degraded map[string]string
	err      error
}

func (r readiness) String() string {
	text := fmt.Sprintf("%d in %s", r.status, r.took.Round(time.Millisecond))
	for what, parts := range map[string]map[string]string{"not ready": r.NotReady, "degraded": r.Degraded} {
		for _, name := range slices.Sorted(maps.Keys(parts)) {
			text += fmt.Sprintf("; %s: %s: %s", what, name, parts[name])
		}
	}
	if r.err != nil {
		text += ": " + r.err.Error()
	}
	return text
}

// vigil asks services whether they are ready, four times a second.
type vigil struct {
	cancel context.CancelFunc
	done   sync.WaitGroup

	mu      sync.Mutex
	answers map[string][]readiness
}

func keepVigil(ctx context.Context, services ...*stack.Service) *vigil {
	ctx, cancel := context.WithCancel(ctx)
	w := &vigil{cancel: cancel, answers: make(map[string][]readiness)}
	for _, service := range services {
		w.done.Go(func() {
			tick := time.NewTicker(250 * time.Millisecond)
			defer tick.Stop()
			for {
				answer := ask(ctx, service)
				if ctx.Err() != nil {
					return
				}
				w.mu.Lock()
				w.answers[service.Name()] = append(w.answers[service.Name()], answer)
				w.mu.Unlock()
				select {
				case <-tick.C:
				case <-ctx.Done():
					return
				}
			}
		})
	}
	return w
}

func ask(ctx context.Context, service *stack.Service) readiness {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	r := readiness{at: time.Now()}
	r.status, r.err = func() (int, error) {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, service.AdminURL()+"/readyz", nil)
		if err != nil {
			return 0, err
		}
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			return 0, err
		}
		defer res.Body.Close() // read to its end
		text, err := io.ReadAll(res.Body)
		if err != nil {
			return 0, err
		}
		return res.StatusCode, json.Unmarshal(text, &r)
	}()
	r.took = time.Since(r.at)
	return r
}

// end stops asking and returns the answers by service.
func (w *vigil) end() map[string][]readiness {
	w.cancel()
	w.done.Wait()
	return w.answers
}

// onTime checks that every answer came, and came within the second that is promised; of a service that was away, those
// that came. How busy the machine is shows in the answers of the gateway, which asks nobody for them.
func onTime(t testing.TB, answers map[string][]readiness, away string) {
	t.Helper()
	limit := 1500 * time.Millisecond
	for _, r := range answers["gateway"] {
		limit = max(limit, time.Second+r.took)
	}
	for name, all := range answers {
		for _, r := range all {
			if r.status == 0 && name != away || r.took > limit {
				t.Errorf("%s: /readyz: %s", name, r)
			}
		}
	}
}

// between are the answers whose question was asked in a time.
func between(answers []readiness, from, to time.Time) []readiness {
	var found []readiness
	for _, r := range answers {
		if r.at.After(from) && r.at.Before(to) {
			found = append(found, r)
		}
	}
	return found
}

// logs remembers how much services have logged.
type logs map[*stack.Service]int64

func markLogs(t testing.TB, services ...*stack.Service) logs {
	t.Helper()
	marks := make(logs)
	for _, service := range services {
		marks[service] = logSize(t, service)
	}
	return marks
}

// logLine is what a service has logged.
type logLine struct {
	Time  time.Time
	Level string
	Msg   string
	raw   string
}

// since are the lines after the mark.
func (l logs) since(t testing.TB, service *stack.Service) []logLine {
	t.Helper()
	text, err := newLog(service, l[service])
	if err != nil {
		t.Fatal(err)
	}
	var lines []logLine
	for raw := range strings.Lines(text) {
		line := logLine{raw: strings.TrimSpace(raw)}
		if json.Unmarshal([]byte(raw), &line) == nil {
			lines = append(lines, line)
		}
	}
	return lines
}

// quiet checks that no service repeated a complaint: one line when a trouble begins, one for each minute of it, and one
// for each of the parts (queues, jobs) that have it at once. What is told singly, of a request or a message that
// failed, is left out.
func (l logs) quiet(t testing.TB, lasted time.Duration, singly ...string) {
	t.Helper()
	const parts = 6
	allowed := parts * (2 + int(lasted/time.Minute))
	for service := range l {
		complaints := make(map[string][]logLine)
		for _, line := range l.since(t, service) {
			if (line.Level == "WARN" || line.Level == "ERROR") && line.Msg != "request failed" &&
				!slices.Contains(singly, line.Msg) {
				complaints[line.Msg] = append(complaints[line.Msg], line)
			}
		}
		for what, lines := range complaints {
			t.Logf("%s logged %d × %q", service.Name(), len(lines), what)
			if len(lines) > allowed {
				t.Errorf("%s logged %q %d times, more than %d in %s; the last: %s",
					service.Name(), what, len(lines), allowed, lasted.Round(time.Second), lines[len(lines)-1].raw)
			}
		}
	}
}

// count is how often a service has logged a message since the mark.
func (l logs) count(t testing.TB, service *stack.Service, msg string) int {
	t.Helper()
	n := 0
	for _, line := range l.since(t, service) {
		if line.Msg == msg {
			n++
		}
	}
	return n
}
