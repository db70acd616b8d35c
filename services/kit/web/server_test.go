package web

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"orderflow.internal/kit/kittest"
)

// start runs a server with both ports until the test ends. stop begins the
// drain and returns what Run returned.
func start(t *testing.T, cfg Config, handler http.Handler,
	change ...func(*Server)) (s *Server, public, admin string, begin context.CancelFunc, ended <-chan error) {
	t.Helper()
	return startLimited(t, cfg, handler, 0, maxHeaderBytes, change...)
}

func startLimited(t *testing.T, cfg Config, handler http.Handler,
	conns, headerBytes int, change ...func(*Server)) (s *Server, public, admin string,
	begin context.CancelFunc, ended <-chan error) {
	t.Helper()
	captureLog(t)
	cfg.Addr, cfg.AdminAddr = "127.0.0.1:0", "127.0.0.1:0"
	s = NewServer(cfg, handler, Admin(http.NotFoundHandler(), nil, nil))
	s.Limit(conns, headerBytes)
	for _, f := range change {
		f(s)
	}

	adminCtx, stopAdmin := context.WithCancel(context.Background())
	adminEnded := make(chan error, 1)
	go func() { adminEnded <- s.RunAdmin(adminCtx) }()
	admin = "http://" + (<-s.listening).String()
	t.Cleanup(func() {
		stopAdmin()
		if err := <-adminEnded; err != nil {
			t.Errorf("admin: %v", err)
		}
	})

	if status, body, _ := get(t, client(t), admin+"/readyz"); status != http.StatusServiceUnavailable ||
		!strings.Contains(body, `{"public port":"not open yet"}`) {
		t.Errorf("readyz before the public port is open: %d %s", status, body)
	}
	ctx, begin := context.WithCancel(context.Background())
	end := make(chan error, 1)
	go func() { end <- s.Run(ctx); close(end) }()
	public = "http://" + (<-s.listening).String()
	t.Cleanup(func() { begin(); <-end })
	kittest.Eventually(t, "it serves", s.serving.Load)
	return s, public, admin, begin, end
}

// client keeps connections of its own, so that tests do not share them.
func client(t *testing.T) *http.Client {
	transport := &http.Transport{}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}

func get(t *testing.T, c *http.Client, url string) (status int, body string, closing bool) {
	t.Helper()
	resp, err := c.Get(url)
	if err != nil {
		t.Fatalf("%s: %v", url, err)
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatalf("%s: %v", url, err)
	}
	return resp.StatusCode, string(data), resp.Close
}

func TestDrain(t *testing.T) {
	waiting, working := make(chan struct{}), make(chan struct{})
	release := make(chan struct{})
	mux := http.NewServeMux()
	mux.HandleFunc("/quick", func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "quick") })
	mux.HandleFunc("/wait", func(w http.ResponseWriter, r *http.Request) {
		close(waiting)
		<-Draining(r.Context())
		w.WriteHeader(http.StatusAccepted)
	})
	mux.HandleFunc("/work", func(w http.ResponseWriter, _ *http.Request) {
		close(working)
		<-release
		io.WriteString(w, "done")
	})
	s, public, admin, begin, ended := start(t,
		Config{DrainDelay: 300 * time.Millisecond, ShutdownTimeout: time.Minute}, mux)
	c := client(t)

	if status, _, closing := get(t, c, public+"/quick"); status != 200 || closing {
		t.Fatalf("before the drain: %d, closing %v", status, closing)
	}
	answers := make(chan string, 2)
	for _, path := range []string{"/wait", "/work"} {
		go func() {
			resp, err := c.Get(public + path)
			if err != nil {
				answers <- err.Error()
				return
			}
			resp.Body.Close()
			answers <- fmt.Sprint(path, resp.StatusCode)
		}()
	}
	<-waiting
	<-working
	spare := dial(t, public) // opened in advance, as http.Transport does
	if status, _, _ := get(t, c, admin+"/readyz"); status != 200 {
		t.Fatalf("not ready: %d", status)
	}

	begin()
	kittest.Eventually(t, "the drain has begun", s.notReady.Load)
	if status, body, _ := get(t, c, admin+"/readyz"); status != 503 || !strings.Contains(body, "stopping") {
		t.Errorf("readyz while draining: %d %s", status, body)
	}
	if status, body, closing := get(t, c, public+"/quick"); status != 200 || body != "quick" || !closing {
		t.Errorf("request while draining: %d %q, closing %v", status, body, closing)
	}
	if got := <-answers; got != "/wait202" { // ends because Draining says so
		t.Error(got)
	}
	select {
	case err := <-ended:
		t.Fatalf("ended with a request in flight: %v", err)
	default:
	}
	close(release)
	if got := <-answers; got != "/work200" {
		t.Error(got)
	}
	began := time.Now()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if took := time.Since(began); took > 3*time.Second {
		t.Errorf("an unused connection held the server for %s", took)
	}
	if _, err := spare.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("unused connection: %v", err)
	}
	if status, _, _ := get(t, c, admin+"/readyz"); status != 503 {
		t.Errorf("readyz after the drain: %d", status)
	}
}

// A client that has a connection open may send a request when the port is
// closed already.
func TestDrainAnswersOnOpenConnections(t *testing.T) {
	handler := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "quick") })
	_, public, _, begin, ended := start(t,
		Config{DrainDelay: 10 * time.Millisecond, ShutdownTimeout: 2 * time.Minute}, handler,
		func(s *Server) { s.restGrace = time.Minute })
	unused, kept := dial(t, public), dial(t, public)
	request := func(conn net.Conn) *http.Response {
		t.Helper()
		if _, err := io.WriteString(conn, "GET / HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			t.Fatal(err)
		}
		io.Copy(io.Discard, resp.Body)
		return resp
	}
	if resp := request(kept); resp.StatusCode != http.StatusOK || resp.Close {
		t.Fatalf("before the drain: %d, closing %v", resp.StatusCode, resp.Close)
	}
	begin()
	kittest.Eventually(t, "no new connection is taken", func() bool {
		conn, err := net.Dial("tcp", strings.TrimPrefix(public, "http://"))
		if err == nil {
			conn.Close()
		}
		return err != nil
	})
	began := time.Now()
	for name, conn := range map[string]net.Conn{"unused": unused, "kept": kept} {
		if resp := request(conn); resp.StatusCode != http.StatusOK || !resp.Close {
			t.Errorf("%s connection: %d, closing %v", name, resp.StatusCode, resp.Close)
		}
	}
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if took := time.Since(began); took >= time.Minute {
		t.Errorf("with no connection left the server ended after %s", took)
	}
}

func dial(t *testing.T, url string) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", strings.TrimPrefix(url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	return conn
}

// A connection beyond the limit gets the place of one that carries no whole
// request, however it was left: unused, idle, with half a header, or with a request that only waits.
func TestConnectionLimit(t *testing.T) {
	const limit = 4
	arrived, release := make(chan struct{}), make(chan struct{})
	var taken atomic.Int64
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/spare" {
			evicted, keep := Spare(r.Context())
			select {
			case <-evicted:
			case <-r.Context().Done():
				if r.ContentLength > 0 {
					t.Error("net/http watches a connection whose body is not read")
				}
			}
			if !keep() {
				taken.Add(1)
			}
			return
		}
		if _, keep := Spare(r.Context()); !keep() {
			if r.URL.Path != "/" { // one of the crowd, closed while its request was read
				t.Error("a connection that is open is said to be closed")
			}
			return
		}
		if r.URL.Path == "/held" {
			arrived <- struct{}{}
			<-release
		}
		io.WriteString(w, "quick")
	})
	_, public, _, begin, ended := startLimited(t, Config{ShutdownTimeout: time.Minute}, handler, limit, maxHeaderBytes)
	ask := func(conn net.Conn, path string) (*http.Response, error) {
		t.Helper()
		if _, err := io.WriteString(conn, "GET "+path+" HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
			return nil, err
		}
		return http.ReadResponse(bufio.NewReader(conn), nil)
	}
	for _, left := range []string{
		"", "GET / HTTP/1.1\r\nHost:", "GET / HTTP/1.1\r\nHost: x\r\n\r\n", "GET /spare HTTP/1.1\r\nHost: x\r\n\r\n",
		"POST /spare HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n",
	} {
		for range 3 * limit {
			if _, err := io.WriteString(dial(t, public), left); err != nil {
				t.Fatal(err)
			}
		}
		if resp, err := ask(dial(t, public), "/last"); err != nil || resp.StatusCode != http.StatusOK {
			t.Errorf("after %q: %v, %v", left, resp, err)
		}
	}

	var held []chan error
	for start := time.Now(); len(held) < limit; {
		conn, answer := dial(t, public), make(chan error, 1)
		go func() {
			resp, err := ask(conn, "/held")
			if err == nil && resp.StatusCode != http.StatusOK {
				err = errors.New(resp.Status)
			}
			answer <- err
		}()
		select {
		case <-arrived:
			held = append(held, answer)
		case err := <-answer: // one of the last crowd's requests is being answered still
			if time.Since(start) > 10*time.Second {
				t.Fatalf("only %d requests are held: %v", len(held), err)
			}
		}
	}
	one := dial(t, public)
	if resp, err := http.ReadResponse(bufio.NewReader(one), nil); err != nil ||
		resp.StatusCode != http.StatusServiceUnavailable || resp.Header.Get("Retry-After") == "" {
		t.Errorf("one too many: %v, %v; want a 503", resp, err)
	}
	close(release)
	for _, answer := range held {
		if err := <-answer; err != nil {
			t.Errorf("a request in hand: %v", err)
		}
	}
	begin()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if taken.Load() == 0 {
		t.Error("no request learned that its connection was taken")
	}
}

// Clients that do not take their answers, or keep back what is left of their requests, are busy for a moment only.
func TestAnsweredRequestsKeepNobodyOut(t *testing.T) {
	const limit = 4
	var handled atomic.Int64
	handler := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		handled.Add(1)
		io.WriteString(w, "quick")
	})
	for name, text := range map[string]string{
		"body kept back":    "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n",
		"answers not taken": strings.Repeat("GET / HTTP/1.1\r\nHost: x\r\n\r\n", 200_000),
	} {
		t.Run(name, func(t *testing.T) {
			handled.Store(0)
			_, public, _, _, _ := startLimited(t, Config{ShutdownTimeout: time.Second}, handler, limit, maxHeaderBytes)
			for range limit {
				conn := dial(t, public)
				go func() { _, _ = io.WriteString(conn, text) }() // until the server closes
			}
			before := int64(-1)
			kittest.Eventually(t, "the server waits for its clients", func() bool {
				stuck := handled.Load() >= limit && handled.Load() == before
				before = handled.Load()
				<-time.After(200 * time.Millisecond)
				return stuck
			})
			began := time.Now()
			kittest.Eventually(t, "somebody else is served", func() bool {
				resp, err := client(t).Get(public)
				if err != nil {
					return false
				}
				resp.Body.Close()
				return resp.StatusCode == http.StatusOK
			})
			if took := time.Since(began); took > 5*time.Second {
				t.Errorf("after %s: that is the end of their time for the body or for the answer", took)
			}
		})
	}
}

// A client that does not read loses its connection, one that reads slowly does not, nor the next request on it.
func TestClientDoesNotRead(t *testing.T) {
	captureLog(t)
	const limit = 200 * time.Millisecond
	gaveUp := make(chan error, 1)
	s := NewServer(Config{Addr: "127.0.0.1:0", ShutdownTimeout: time.Second},
		http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/events" {
				for range 3 {
					_, _ = io.WriteString(w, "id: 1\n")
					if err := http.NewResponseController(w).Flush(); err != nil {
						t.Errorf("flush: %v", err)
					}
					<-time.After(limit * 2 / 3) // a stream that is slow, but not too slow
				}
				return
			}
			for {
				if _, err := w.Write(make([]byte, 1<<20)); err != nil {
					gaveUp <- err
					return
				}
			}
		}), nil)
	s.writeTimeout = limit
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error)
	go func() { ended <- s.Run(ctx) }()
	addr := "http://" + (<-s.listening).String()
	defer func() { cancel(); <-ended }()

	c := client(t)
	for range 2 { // the second on the same connection, after the limit has passed
		if status, body, _ := get(t, c, addr+"/events"); status != 200 || len(body) != 18 {
			t.Errorf("read %d %q", status, body)
		}
		<-time.After(2 * limit)
	}
	resp, err := c.Get(addr + "/endless")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if err := <-gaveUp; !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("the write ended with %v, want the deadline", err)
	}
}

func TestHeaderLimit(t *testing.T) {
	_, public, _, _, _ := startLimited(t, Config{ShutdownTimeout: time.Second},
		http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}), 0, 1<<10)
	for size, want := range map[int]int{512: http.StatusOK, 8 << 10: http.StatusRequestHeaderFieldsTooLarge} {
		conn := dial(t, public)
		fmt.Fprintf(conn, "GET / HTTP/1.1\r\nHost: x\r\nX: %s\r\n\r\n", strings.Repeat("x", size))
		if resp, err := http.ReadResponse(bufio.NewReader(conn), nil); err != nil || resp.StatusCode != want {
			t.Errorf("a header of %d bytes: %v, %v; want %d", size, resp, err, want)
		}
	}
}

// What is to run when the drain begins does so at once for a server that has
// begun it, and never after its stop.
func TestOnDrain(t *testing.T) {
	called, spared := make(chan struct{}), make(chan struct{})
	arrived := make(chan struct{})
	handler := http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		OnDrain(r.Context(), func() { close(called) })
		if stop := OnDrain(r.Context(), func() { close(spared) }); !stop() {
			t.Error("it was stopped too late")
		}
		close(arrived)
		<-Draining(r.Context())
	})
	_, public, _, begin, ended := start(t, Config{ShutdownTimeout: time.Minute}, handler)
	go func() {
		if resp, err := http.Get(public); err == nil {
			resp.Body.Close()
		}
	}()
	<-arrived
	begin()
	<-called
	if err := <-ended; err != nil {
		t.Error(err)
	}
	select {
	case <-spared:
		t.Error("what was stopped ran")
	default:
	}
	http.DefaultClient.CloseIdleConnections()
}

func TestDrainCutsOffWhatDoesNotEnd(t *testing.T) {
	working := make(chan struct{})
	_, public, _, begin, ended := start(t, Config{ShutdownTimeout: 300 * time.Millisecond}, http.HandlerFunc(
		func(_ http.ResponseWriter, r *http.Request) {
			close(working)
			<-r.Context().Done()
		}))
	failed := make(chan error, 1)
	go func() {
		resp, err := client(t).Get(public)
		if err == nil {
			resp.Body.Close()
		}
		failed <- err
	}()
	<-working
	begin()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if err := <-failed; err == nil {
		t.Error("the request was answered")
	}
}

func TestPortInUse(t *testing.T) {
	captureLog(t)
	other, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	_, port, _ := net.SplitHostPort(other.Addr().String())
	s := NewServer(Config{Addr: other.Addr().String(), AdminAddr: "nonsense"}, http.NotFoundHandler(),
		http.NotFoundHandler())
	if err := s.Run(t.Context()); err == nil ||
		!strings.HasPrefix(err.Error(), "port "+port+" is in use: stop what listens there or set HTTP_ADDR") {
		t.Errorf("%v", err)
	}
	if err := s.RunAdmin(t.Context()); err == nil || !strings.HasPrefix(err.Error(), "ADMIN_ADDR: ") {
		t.Errorf("%v", err)
	}
}

func TestSlowBodyIsGivenUpAndALongAnswerIsNot(t *testing.T) {
	captureLog(t)
	const limit = 200 * time.Millisecond
	s := NewServer(Config{Addr: "127.0.0.1:0", ShutdownTimeout: time.Second},
		http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if _, err := io.ReadAll(r.Body); err != nil {
				w.WriteHeader(http.StatusRequestTimeout)
				return
			}
			select {
			case <-r.Context().Done():
			case <-time.After(3 * limit):
				io.WriteString(w, "late")
			}
		}), nil)
	s.readTimeout = limit
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error)
	go func() { ended <- s.Run(ctx) }()
	addr := "http://" + (<-s.listening).String()
	defer func() { cancel(); <-ended }()

	conn := dial(t, addr)
	fmt.Fprint(conn, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nslow")
	answer := make([]byte, 256)
	n, err := conn.Read(answer)
	if err != nil || !strings.Contains(string(answer[:n]), "408") {
		t.Errorf("slow body: %q %v", answer[:n], err)
	}

	if status, body, _ := get(t, client(t), addr); status != 200 || body != "late" {
		t.Errorf("long answer: %d %q", status, body)
	}
}

func TestConfigValidate(t *testing.T) {
	err := Config{Addr: "5003", AdminAddr: ":6003", DrainDelay: -1, ShutdownTimeout: 0}.Validate()
	for _, want := range []string{`HTTP_ADDR="5003"`, "DRAIN_DELAY=", "SHUTDOWN_TIMEOUT="} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("no %s in %v", want, err)
		}
	}
	if err := (Config{Addr: ":1", AdminAddr: ":2", DrainDelay: time.Second, ShutdownTimeout: 9 * time.Second}).
		Validate(); err != nil {
		t.Error(err)
	}
}
