package web

import (
	"context"
	"net/http"
	"net/http/pprof"
	"sync"
	"time"
)

// Checks are what must be in order before a process can take work, by name. A
// check returns soon after its context is done.
type Checks map[string]func(context.Context) error

// checkTimeout bounds one look at a dependency.
const checkTimeout = time.Second

// Admin is the handler of the admin port, which is not for the public:
// /livez (200 while the process runs), /readyz (503 naming what is not ready),
// /metrics and /debug/pprof/.
func Admin(metrics http.Handler, checks Checks) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /livez", func(w http.ResponseWriter, _ *http.Request) {
		_ = Write(w, http.StatusOK, readiness{Status: "alive"})
	})
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, r *http.Request) {
		answer := checks.run(r.Context())
		status := http.StatusOK
		if len(answer.NotReady) > 0 {
			status = http.StatusServiceUnavailable
		}
		_ = Write(w, status, answer)
	})
	mux.Handle("GET /metrics", metrics)
	mux.HandleFunc("GET /debug/pprof/", pprof.Index)
	mux.HandleFunc("GET /debug/pprof/cmdline", pprof.Cmdline)
	mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("GET /debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
	return mux
}

type readiness struct {
	Status   string            `json:"status"`
	NotReady map[string]string `json:"notReady,omitempty"`
}

func (c Checks) run(ctx context.Context) readiness {
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	answer := readiness{Status: "ready", NotReady: map[string]string{}}
	var mu sync.Mutex
	var wg sync.WaitGroup
	for name, check := range c {
		wg.Go(func() {
			if err := check(ctx); err != nil {
				mu.Lock()
				defer mu.Unlock()
				answer.NotReady[name] = err.Error()
			}
		})
	}
	wg.Wait()
	if len(answer.NotReady) > 0 {
		answer.Status = "not ready"
	}
	return answer
}
