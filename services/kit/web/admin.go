package web

import (
	"context"
	"net/http"
	"net/http/pprof"
	"time"

	"golang.org/x/sync/singleflight"
)

// Checks are looks at what a process depends on, by name. A check should return
// soon after its context is done; one that does not is reported as hanging.
type Checks map[string]func(context.Context) error

// checkLimit bounds a look at all dependencies. With the answer's own way it
// stays below one second, which probes wait for at most.
const checkLimit = 800 * time.Millisecond

// publicPort is what a [Server] is not ready without, besides its checks.
const publicPort = "public port"

// Admin is the handler of the admin port, which is not for the public:
// /livez (200 while the process runs), /readyz and /metrics.
//
// /readyz answers within a second: 200, or 503 naming the checks that fail
// under "notReady". What fails among notes is named under "degraded" and changes
// nothing else: for what the process can do without, for a time.
func Admin(metrics http.Handler, checks, notes Checks) http.Handler {
	var looks singleflight.Group
	mux := http.NewServeMux()
	mux.HandleFunc("GET /livez", func(w http.ResponseWriter, _ *http.Request) {
		_ = Write(w, http.StatusOK, readiness{Status: "alive"})
	})
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), checkLimit)
		defer cancel()
		notReady, degraded := run(ctx, &looks, checks, "check "), run(ctx, &looks, notes, "note ")
		answer, status := readiness{Status: "ready", NotReady: notReady(), Degraded: degraded()}, http.StatusOK
		if r.Context().Value(startingKey{}) != nil { // whoever is sent here now would be refused
			answer.NotReady[publicPort] = "not open yet"
		}
		if len(answer.NotReady) > 0 {
			answer.Status, status = "not ready", http.StatusServiceUnavailable
		}
		_ = Write(w, status, answer)
	})
	mux.Handle("GET /metrics", metrics)
	return mux
}

// profiles serves /debug/pprof/, which tells what lies in memory and costs CPU.
func profiles() http.Handler {
	mux := http.NewServeMux()
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
	Degraded map[string]string `json:"degraded,omitempty"`
}

// run starts all checks; what it returns waits for them until ctx is done and
// returns the failures. Probes that come while a check is under way share it,
// so that one which hangs costs one goroutine and not one for each probe.
func run(ctx context.Context, looks *singleflight.Group, checks Checks, prefix string) func() map[string]string {
	results := make(map[string]<-chan singleflight.Result, len(checks))
	for name, check := range checks {
		results[name] = looks.DoChan(prefix+name, func() (any, error) { return nil, check(ctx) })
	}
	return func() map[string]string {
		failed := map[string]string{}
		for name, result := range results {
			select {
			case r := <-result:
				if r.Err != nil {
					failed[name] = r.Err.Error()
				}
			case <-ctx.Done():
				failed[name] = "no answer within " + checkLimit.String()
			}
		}
		return failed
	}
}
