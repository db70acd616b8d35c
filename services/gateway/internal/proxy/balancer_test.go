package proxy

import (
	"context"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"orderflow.internal/kit/kittest"
	"orderflow.internal/kit/web"
)

func TestTurnsAreTaken(t *testing.T) {
	a, b := newUpstream(t, answer("")), newUpstream(t, answer(""))
	door := newDoor(t, nil, a.URL, b.URL)
	for range 10 {
		send(t, door, "GET", "/orders", "")
	}
	if a.requests.Load() != 5 || b.requests.Load() != 5 {
		t.Errorf("%d and %d requests, want 5 each", a.requests.Load(), b.requests.Load())
	}
}

// Nothing was sent to an instance that cannot be dialed, so that any request
// can go to another; and it is left alone for a while.
func TestDeadInstanceIsHidden(t *testing.T) {
	live := newUpstream(t, func(w http.ResponseWriter, r *http.Request) { _, _ = io.Copy(w, r.Body) })
	door := newDoor(t, nil, nobody(t), live.URL, nobody(t))
	for range 9 {
		if resp, body := send(t, door, "POST", "/orders", "{}"); resp.StatusCode != http.StatusOK || body != "{}" {
			t.Fatalf("answer is %d %q", resp.StatusCode, body)
		}
	}
}

func TestNobodyThere(t *testing.T) {
	door := newDoor(t, nil, nobody(t), nobody(t))
	resp, body := send(t, door, "POST", "/orders", "{}")
	wantStatus(t, resp, body, http.StatusServiceUnavailable, "/problems/unavailable")
	if got := resp.Header.Get("Retry-After"); got != "1" && got != "2" {
		t.Errorf("Retry-After is %q, want 1 or 2", got)
	}
}

// An instance that says it is stopping gets no more requests while there is
// another, and all of them when there is none.
func TestDrainingInstanceIsAvoided(t *testing.T) {
	stopping := func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("Connection", "close") }
	a, b := newUpstream(t, stopping), newUpstream(t, answer(""))
	door := newDoor(t, nil, a.URL, b.URL)
	for range 10 {
		if resp, _ := send(t, door, "POST", "/orders", "{}"); resp.StatusCode != http.StatusOK {
			t.Fatalf("answer is %d", resp.StatusCode)
		}
	}
	if got := a.requests.Load(); got != 1 {
		t.Errorf("the stopping instance got %d requests, want 1", got)
	}

	alone := newDoor(t, nil, a.URL)
	for range 3 {
		if resp, _ := send(t, alone, "POST", "/orders", "{}"); resp.StatusCode != http.StatusOK {
			t.Errorf("answer of the only instance is %d", resp.StatusCode)
		}
	}
}

// In a rolling restart the instance that was restarted is back before it would be
// chosen again, and the next one is stopping already.
func TestRestartedInstanceIsPreferredToAStoppingOne(t *testing.T) {
	var restarted atomic.Bool
	stopping := func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("Connection", "close") }
	a := newUpstream(t, func(w http.ResponseWriter, r *http.Request) {
		if !restarted.Swap(true) {
			stopping(w, r)
		}
	})
	b := newUpstream(t, stopping)
	door := newDoor(t, nil, b.URL, a.URL) // the second one's turn comes first
	for range 10 {
		send(t, door, "POST", "/orders", "{}")
	}
	if a.requests.Load() != 9 || b.requests.Load() != 1 {
		t.Errorf("the restarted instance got %d requests and the stopping one %d, want 9 and 1",
			a.requests.Load(), b.requests.Load())
	}
}

// An instance that takes requests and answers none, as a process does that is frozen, costs one request of those that
// are sent in turn, and that one only a short time.
func TestSilentInstanceIsLeftOut(t *testing.T) {
	release := make(chan struct{})
	silent := newUpstream(t, func(http.ResponseWriter, *http.Request) { <-release })
	t.Cleanup(func() { close(release) }) // before the server is closed, which waits
	live := newUpstream(t, answer(""))
	door := newDoor(t, func(cfg *Config) { cfg.Brief = time.Second }, silent.URL, live.URL)
	statuses := map[int]int{}
	for range 10 {
		resp, _ := send(t, door, "GET", "/orders", "")
		statuses[resp.StatusCode]++
	}
	if statuses[http.StatusOK] != 9 || statuses[http.StatusGatewayTimeout] != 1 || silent.requests.Load() != 1 {
		t.Errorf("answers by status: %v; the silent instance got %d requests, want 1", statuses, silent.requests.Load())
	}
}

// One that is stopping, or cannot be reached for the moment, is still better than one that does not answer.
func TestSilentInstanceComesLast(t *testing.T) {
	b := newBalancer(Config{Instances: make([]url.URL, 3)})
	now := time.Now()
	b.silent[0].Store(now.Add(time.Second).UnixNano())
	b.avoid[1].Store(now.Add(time.Minute).UnixNano())
	b.avoid[2].Store(now.Add(time.Hour).UnixNano())
	for turn := range 3 {
		if got := b.pick(turn, make([]bool, 3)); got != 1 {
			t.Errorf("turn %d: instance %d, want the one avoided for longest", turn, got)
		}
	}
	if got := b.pick(1, []bool{false, true, true}); got != 0 {
		t.Errorf("instance %d, want the only one that was not tried", got)
	}
	b.silent[0].Store(now.Add(-time.Second).UnixNano()) // its pause is over
	if first, second := b.pick(0, make([]bool, 3)), b.pick(0, make([]bool, 3)); first != 0 || second != 1 {
		t.Errorf("instances %d and %d, want one request to find out whether the first answers", first, second)
	}
}

// A caller who gives up says nothing about the instance.
func TestCallerWhoGivesUpLeavesNoInstanceOut(t *testing.T) {
	slow := newUpstream(t, func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	transport := NewTransport(AnswerTimeout)
	t.Cleanup(transport.CloseIdleConnections)
	b := newBalancer(Config{Transport: transport, Replayable: func(*http.Request) bool { return true },
		Instances: []url.URL{parseURL(t, slow.URL)}})
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "/orders", nil)
	if err != nil {
		t.Fatal(err)
	}
	if resp, err := b.RoundTrip(req); err == nil {
		_ = resp.Body.Close()
		t.Fatal("it was answered")
	}
	if b.silent[0].Load() != 0 || b.avoid[0].Load() != 0 {
		t.Error("the instance is left out")
	}
	// Nor does it tell that an instance answers again.
	b.silent[0].Store(time.Now().Add(time.Hour).UnixNano())
	ctx, cancel = context.WithCancel(t.Context())
	time.AfterFunc(50*time.Millisecond, cancel)
	if resp, err := b.RoundTrip(req.WithContext(ctx)); err == nil {
		_ = resp.Body.Close()
		t.Fatal("it was answered")
	}
	if b.silent[0].Load() == 0 {
		t.Error("the instance is taken for one that answers")
	}
}

// What has begun may take its time, and so may the beginning of an answer that is worth waiting for.
func TestBriefRequests(t *testing.T) {
	const brief = time.Second
	slow := newUpstream(t, func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/begins") {
			w.WriteHeader(http.StatusOK)
			_ = http.NewResponseController(w).Flush()
		}
		<-time.After(3 * brief)
		_, _ = io.WriteString(w, "whole")
	})
	for name, c := range map[string]struct {
		route  Route
		path   string
		status int
	}{
		"begins in time": {Route{Body: maxBody}, "/begins", http.StatusOK},
		"begins late":    {Route{Body: maxBody}, "/late", http.StatusGatewayTimeout},
		"patient":        {Route{Body: maxBody, Patient: true}, "/late", http.StatusOK},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			door := newRoute(t, c.route, func(cfg *Config) { cfg.Brief = brief }, slow.URL)
			resp, body := send(t, door, "GET", c.path, "")
			if resp.StatusCode != c.status || (c.status == http.StatusOK) != (body == "whole") {
				t.Errorf("%d %q, want %d", resp.StatusCode, body, c.status)
			}
		})
	}
}

// A request that may have been handled is sent again only where that does no
// harm.
func TestBrokenConnection(t *testing.T) {
	t.Run("harmless", func(t *testing.T) {
		dying, live := newUpstream(t, hangUp), newUpstream(t, answer("ok"))
		door := newDoor(t, nil, dying.URL, live.URL)
		for range 4 {
			if resp, body := send(t, door, "GET", "/orders", ""); resp.StatusCode != http.StatusOK || body != "ok" {
				t.Errorf("answer is %d %q", resp.StatusCode, body)
			}
		}
	})
	t.Run("harmful", func(t *testing.T) {
		a, b := newUpstream(t, hangUp), newUpstream(t, hangUp)
		door := newDoor(t, nil, a.URL, b.URL)
		resp, body := send(t, door, "POST", "/orders", "{}")
		wantStatus(t, resp, body, http.StatusBadGateway, "/problems/bad-gateway")
		if got := a.requests.Load() + b.requests.Load(); got != 1 {
			t.Errorf("sent %d times, want once", got)
		}
	})
	t.Run("with its body", func(t *testing.T) {
		dying := newUpstream(t, hangUp)
		live := newUpstream(t, func(w http.ResponseWriter, r *http.Request) { _, _ = io.Copy(w, r.Body) })
		door := newDoor(t, func(cfg *Config) {
			cfg.Replayable = func(*http.Request) bool { return true }
		}, dying.URL, live.URL)
		for range 4 {
			if resp, body := send(t, door, "POST", "/orders", `{"a":1}`); resp.StatusCode != http.StatusOK || body != `{"a":1}` {
				t.Errorf("answer is %d %q", resp.StatusCode, body)
			}
		}
	})
	t.Run("one address", func(t *testing.T) {
		var first atomic.Bool
		service := newUpstream(t, func(w http.ResponseWriter, r *http.Request) {
			if first.CompareAndSwap(false, true) {
				hangUp(w, r)
			}
		})
		door := newDoor(t, nil, service.URL)
		if resp, _ := send(t, door, "GET", "/orders", ""); resp.StatusCode != http.StatusOK {
			t.Errorf("answer is %d", resp.StatusCode)
		}
	})
}

// process is a server with the life of a service's.
type process struct {
	url    string
	client *http.Client
	stop   func() error // drains, returns when it is gone
}

// serve returns when the server answers.
func serve(t *testing.T, addr string, handler http.Handler) process {
	t.Helper()
	server := web.NewServer(web.Config{Addr: addr, DrainDelay: 400 * time.Millisecond, ShutdownTimeout: 9 * time.Second},
		handler, nil)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- server.Run(ctx) }()
	p := process{url: "http://" + addr, client: &http.Client{Transport: &http.Transport{}}}
	p.stop = func() error {
		cancel()
		p.client.CloseIdleConnections()
		return <-ended
	}
	kittest.Listens(t, addr)
	return p
}

func parseURL(t *testing.T, raw string) url.URL {
	t.Helper()
	u, err := url.Parse(raw)
	if err != nil {
		t.Fatal(err)
	}
	return *u
}

// Two instances are stopped and started again in turn, under load: no request
// fails, though none may be sent twice.
func TestRollingRestart(t *testing.T) {
	var handled atomic.Int64
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.ReadAll(r.Body)
		<-time.After(2 * time.Millisecond) // some are in flight when the stop comes
		handled.Add(1)
	})
	addrs := []string{strings.TrimPrefix(nobody(t), "http://"), strings.TrimPrefix(nobody(t), "http://")}
	instances := []process{serve(t, addrs[0], handler), serve(t, addrs[1], handler)}
	door := newDoor(t, func(cfg *Config) {
		cfg.Replayable = func(*http.Request) bool { return false }
	}, instances[0].url, instances[1].url)

	var answered, failed atomic.Int64
	var clients sync.WaitGroup
	done := make(chan struct{})
	for range 8 {
		clients.Go(func() {
			client := &http.Client{Transport: &http.Transport{}}
			defer client.CloseIdleConnections()
			for {
				select {
				case <-done:
					return
				default:
				}
				resp, err := client.Post(door.URL+"/orders", "application/json", strings.NewReader("{}"))
				if err != nil {
					t.Error(err)
					return
				}
				if resp.StatusCode == http.StatusOK {
					answered.Add(1)
				} else if failed.Add(1) == 1 {
					body, err := io.ReadAll(resp.Body)
					t.Errorf("answer is %d %s, %v", resp.StatusCode, body, err)
				}
				resp.Body.Close()
			}
		})
	}
	for range 2 {
		for i := range instances {
			before := handled.Load()
			if err := instances[i].stop(); err != nil {
				t.Errorf("instance %d: %v", i, err)
			}
			instances[i] = serve(t, addrs[i], handler)
			if handled.Load() == before {
				t.Error("nothing was handled while an instance was stopping")
			}
		}
	}
	close(done)
	clients.Wait()
	for i := range instances {
		if err := instances[i].stop(); err != nil {
			t.Error(err)
		}
	}
	if answered.Load() != handled.Load() || failed.Load() > 0 {
		t.Errorf("%d answered and %d failed of %d handled", answered.Load(), failed.Load(), handled.Load())
	}
}
