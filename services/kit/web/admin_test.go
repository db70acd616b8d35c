package web

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

func readyz(admin http.Handler) (status int, body string) {
	w := httptest.NewRecorder()
	admin.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/readyz", nil))
	return w.Code, w.Body.String()
}

func TestReadiness(t *testing.T) {
	down, alarm := errors.New("not connected"), errors.New("memory alarm")
	admin := Admin(http.NotFoundHandler(), Checks{
		"database": func(context.Context) error { return down },
		"schema":   func(context.Context) error { return nil },
	}, Checks{
		"publisher": func(context.Context) error { return alarm },
		"consumer":  func(context.Context) error { return nil },
	})
	for _, step := range []struct {
		down, alarm error
		status      int
		body        string
	}{
		{down, nil, 503, `{"status":"not ready","notReady":{"database":"not connected"}}`},
		{down, alarm, 503,
			`{"status":"not ready","notReady":{"database":"not connected"},"degraded":{"publisher":"memory alarm"}}`},
		{nil, alarm, 200, `{"status":"ready","degraded":{"publisher":"memory alarm"}}`},
		{nil, nil, 200, `{"status":"ready"}`},
	} {
		down, alarm = step.down, step.alarm
		if status, body := readyz(admin); status != step.status || body != step.body+"\n" {
			t.Errorf("%d %s, want %d %s", status, body, step.status, step.body)
		}
	}
	w := httptest.NewRecorder()
	admin.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/livez", nil))
	if w.Code != 200 {
		t.Errorf("not alive: %d", w.Code)
	}
}

func TestReadinessAnswersWithinASecondWhateverItsChecksDo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		defer close(release)
		var started atomic.Int32
		deaf := func(context.Context) error { // to its context
			started.Add(1)
			<-release
			return nil
		}
		obedient := func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }
		admin := Admin(http.NotFoundHandler(), Checks{"database": deaf}, Checks{"publisher": obedient, "consumer": deaf})
		for range 3 {
			began := time.Now()
			status, body := readyz(admin)
			if took := time.Since(began); took >= time.Second {
				t.Errorf("answered after %s", took)
			}
			want := `{"status":"not ready","notReady":{"database":"no answer within 800ms"},` +
				`"degraded":{"consumer":"no answer within 800ms","publisher":`
			if status != 503 || len(body) < len(want) || body[:len(want)] != want {
				t.Errorf("%d %s", status, body)
			}
		}
		if n := started.Load(); n != 2 {
			t.Errorf("two hanging checks were started %d times", n)
		}
	})
}

func TestProfilesAreServedOnlyWhenAskedFor(t *testing.T) {
	for profiling, want := range map[bool]int{false: 404, true: 200} {
		server := NewServer(Config{Profiling: profiling}, nil, Admin(http.NotFoundHandler(), nil, nil))
		w := httptest.NewRecorder()
		server.private(w, httptest.NewRequest(http.MethodGet, "/debug/pprof/cmdline", nil))
		if w.Code != want {
			t.Errorf("profiling %t: %d, want %d", profiling, w.Code, want)
		}
	}
}
