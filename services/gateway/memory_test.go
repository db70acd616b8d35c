package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"orderflow.internal/kit/webtest"
)

// containerMemory is what the charts give a gateway, in MiB.
const containerMemory = 192

// process is a gateway as it is run: compiled, and in a process of its own.
type process struct {
	addr string
	pid  int
}

func startProcess(t *testing.T, upstream string, env ...string) *process {
	t.Helper()
	binary := filepath.Join(t.TempDir(), "gateway")
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", binary, ".").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	cmd := exec.CommandContext(context.WithoutCancel(t.Context()), binary)
	cmd.Env = []string{
		"HTTP_ADDR=127.0.0.1:0", "ADMIN_ADDR=127.0.0.1:0", "LOG_FORMAT=json",
		"ORDERS_URL=" + upstream, "PRODUCTS_URL=" + upstream, "CUSTOMERS_URL=" + upstream,
		fmt.Sprintf("GOMEMLIMIT=%dMiB", containerMemory),
	}
	cmd.Env = append(cmd.Env, env...)
	log, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait() // killed
	})
	lines := bufio.NewScanner(log)
	for lines.Scan() {
		var line struct{ Msg, Setting, Addr string }
		if json.Unmarshal(lines.Bytes(), &line) == nil && line.Msg == "listening" && line.Setting == "HTTP_ADDR" {
			go func() { _, _ = io.Copy(io.Discard, log) }()
			return &process{addr: line.Addr, pid: cmd.Process.Pid}
		}
	}
	t.Fatal("the gateway ended")
	return nil
}

// peak is the largest resident set that the process has had, in MiB.
func (p *process) peak(t *testing.T) int {
	t.Helper()
	f, err := os.Open(fmt.Sprintf("/proc/%d/status", p.pid))
	if err != nil {
		t.Skipf("no /proc to read the resident set from: %v", err)
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if kB, ok := strings.CutPrefix(lines.Text(), "VmHWM:"); ok {
			n, err := strconv.Atoi(strings.TrimSuffix(strings.TrimSpace(kB), " kB"))
			if err != nil {
				t.Fatal(err)
			}
			return n >> 10
		}
	}
	t.Fatal("there is no VmHWM")
	return 0
}

// slowService answers at once, except to those who want to wait for orders or
// follow one.
func slowService(w http.ResponseWriter, r *http.Request) {
	_, _ = io.Copy(io.Discard, r.Body)
	switch {
	case strings.HasSuffix(r.URL.Path, "/events"):
		w.Header().Set("Content-Type", "text/event-stream")
		_, _ = io.WriteString(w, "event: order\nid: 1\ndata: {}\n\n")
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
	case r.Method == http.MethodPost && r.URL.Path == apiPrefix+"/orders" && r.Header.Get("Prefer") != "respond-async":
		<-r.Context().Done()
	default:
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, "{}")
	}
}

// Whatever clients hold, a gateway stays within its container's memory and
// serves the others.
func TestMemory(t *testing.T) {
	upstream := httptest.NewServer(http.HandlerFunc(slowService))
	t.Cleanup(upstream.Close) // after the process, which is its client
	p := startProcess(t, upstream.URL)
	serves := func(after string) {
		t.Helper()
		for _, request := range []struct{ method, path, body string }{
			{"GET", "/products", ""},
			{"POST", "/products", `{"name":"Espresso cup","priceCents":2499,"stock":1}`},
		} {
			req, err := http.NewRequestWithContext(t.Context(), request.method, "http://"+p.addr+request.path,
				strings.NewReader(request.body))
			if err != nil {
				t.Fatal(err)
			}
			req.Close = true
			resp, err := http.DefaultClient.Do(req)
			if err != nil {
				t.Fatalf("%s: %v", after, err)
			}
			if err := resp.Body.Close(); err != nil || resp.StatusCode/100 != 2 {
				t.Errorf("%s: %s %s answers %d, %v", after, request.method, request.path, resp.StatusCode, err)
			}
		}
		used := p.peak(t)
		t.Logf("%-12s %d MiB", after, used)
		if used >= containerMemory {
			t.Errorf("%s: %d MiB, the container has %d", after, used, containerMemory)
		}
	}
	serves("at rest")

	followers := webtest.NewCrowd(t, p.addr)
	followers.Join(t, 2000, request("GET", "/orders/0198e1b2-7c3d-7a10-9f00-3c5f1d2b4a60/events", 0))
	followers.Await(t,
		func(answers map[int]int) bool { return answers[200] == maxStreams && answers[503] == 2000-maxStreams })
	serves("streams")

	order := `{"customerId":"550e8400-e29b-41d4-a716-446655440000",` +
		`"productId":"550e8400-e29b-41d4-a716-446655440001","quantity":2}`
	waiting := webtest.NewCrowd(t, p.addr)
	waiting.Join(t, 2000, request("POST", "/orders", len(order))+order)
	// The others are not made to wait, or find too many at once.
	waiting.Await(t, func(answers map[int]int) bool { return answers[200]+answers[503]+answers[0] == 2000-maxWaiting })
	serves("waiting")

	large := webtest.NewCrowd(t, p.addr)
	large.Join(t, 400, request("POST", "/orders", 1<<20)+strings.Repeat(" ", 1<<20-1))
	large.Await(t, func(answers map[int]int) bool { return answers[413]+answers[0] == 400 })
	holding := webtest.NewCrowd(t, p.addr)
	holding.Join(t, 400, request("POST", "/orders", maxOrderBody)+strings.Repeat(" ", maxOrderBody-1))
	serves("bodies")

	headers := webtest.NewCrowd(t, p.addr)
	headers.Join(t, 2000,
		strings.TrimSuffix(request("GET", "/products", 0), "\r\n")+"X-Large: "+strings.Repeat("x", maxHeaderBytes))
	serves("headers")
}

// request is the head of a request like a browser's.
func request(method, path string, length int) string {
	return fmt.Sprintf("%s %s HTTP/1.1\r\nHost: localhost:5108\r\n"+
		"User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0\r\n"+
		"Accept: */*\r\nAccept-Language: en-US,en;q=0.5\r\nAccept-Encoding: gzip, deflate\r\nPrefer: wait=30\r\n"+
		"Content-Type: application/json\r\nContent-Length: %d\r\nConnection: keep-alive\r\n\r\n", method, path, length)
}
