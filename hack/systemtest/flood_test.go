package systemtest

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"golang.org/x/oauth2"
	"golang.org/x/sync/errgroup"

	"orderflow.internal/hack/stack"
)

// One customer sends far more than its quota: it gets that to the request, and the orders of another are confirmed
// meanwhile, in the long form in at most twice the time by the p99.
func TestEnduringFlood(t *testing.T) {
	const perHour, requests = 200, 400
	s, issuer := startGuarded(t, map[string]string{"LIMIT_READS": enduring(fmt.Sprintf("%d/1h", perHour), "2000/10s")})
	token := issuer.Customer(t, uuid.New())
	lasts, rounds := enduring(time.Second, 10*time.Second), enduring([]int{20}, []int{20, 200, 1000})
	beside := enduring(8*time.Second, 30*time.Second) // before and after the rounds
	load := steady(s, 30, time.Duration(2*len(rounds))*lasts+beside)
	load.Tokens = oauth2.StaticTokenSource(&oauth2.Token{AccessToken: issuer.Scoped(t, "operations")})
	var healthy, flooded []window
	r := during(t.Context(), t, load, func(time.Time) {
		for _, connections := range rounds {
			from := time.Now()
			<-time.After(lasts)
			to := time.Now()
			f := flood{s: s, token: token, connections: connections, rate: 10_000}
			end, want := enduring(time.Time{}, to.Add(lasts)), enduring(requests, f.rate*int(lasts.Seconds()))
			if err := f.send(t.Context(), want, end); err != nil {
				t.Error(err)
			}
			healthy, flooded = append(healthy, window{from, to}), append(flooded, window{to, time.Now()})
			t.Logf("%d connections sent %d of %d requests in %s: %d passed, %d were refused",
				connections, f.sent.Load(), want, time.Since(to), f.passed.Load(), f.refused.Load())
			if int(f.sent.Load()) < want*9/10 && !f.held.Load() {
				t.Error("that was no flood")
			}
			if passed := f.passed.Load(); !endures() && (passed != perHour || f.refused.Load() != requests-perHour) {
				t.Errorf("%d requests passed, want %d of %d", passed, perHour, requests)
			}
		}
	})
	promised(t, r, load.Orders, false)
	if endures() {
		for i, connections := range rounds {
			before, meanwhile := healthy[i].p99(t, r), flooded[i].p99(t, r)
			t.Logf("%d connections: p99 %s before, %s meanwhile", connections, before, meanwhile)
		}
		unaffected(t, r, healthy, flooded)
	}
}

// flood is what one client sends without a care for the answers.
type flood struct {
	s           *stack.Stack
	token       string
	connections int
	rate        int // requests a second, of all connections

	sent, passed, refused atomic.Int64
	held                  atomic.Bool // back, by TCP, on one connection at least
}

// send sends so many requests, or what it can of them before a time is over, without waiting for the answers to one
// before it sends the next. It is cheap, as the machine of a client would be another one.
func (f *flood) send(ctx context.Context, requests int, end time.Time) error {
	var working errgroup.Group
	for i := range f.connections {
		working.Go(func() error {
			conn, err := (&net.Dialer{Deadline: end}).DialContext(ctx, "tcp", f.address())
			if err != nil {
				return err
			}
			if err := conn.SetDeadline(end); err != nil {
				return err
			}
			var reading sync.WaitGroup
			var failed error
			reading.Go(func() {
				if failed = f.read(conn, requests/f.connections); failed != nil {
					_ = conn.Close() // the sender must not wait for it
				}
			})
			err = f.write(conn, requests/f.connections, i)
			reading.Wait()
			_ = conn.Close() // everything was read, or it is too late
			if failed = cmp.Or(failed, err); errors.Is(failed, os.ErrDeadlineExceeded) {
				return nil
			}
			return failed // the first is why
		})
	}
	return working.Wait()
}

func (f *flood) address() string { return strings.TrimPrefix(f.s.BaseURL(), "http://") }

// write keeps to its rate, or catches up when it was held back. The connections take turns.
func (f *flood) write(conn net.Conn, requests, turn int) error {
	const batch = 10
	text := strings.Repeat(fmt.Sprintf("GET /orders?limit=1 HTTP/1.1\r\nHost: %s\r\nAuthorization: Bearer %s\r\n\r\n",
		f.address(), f.token), batch)
	began := time.Now()
	for n := 0; n < requests; n += batch {
		before := n*f.connections + turn*batch // of all connections
		<-time.After(time.Until(began.Add(time.Second * time.Duration(before) / time.Duration(f.rate))))
		if _, err := io.WriteString(conn, text); err != nil {
			if errors.Is(err, os.ErrDeadlineExceeded) {
				f.held.Store(true)
			}
			return err
		}
		f.sent.Add(batch)
	}
	return nil
}

func (f *flood) read(conn net.Conn, answers int) error {
	r := bufio.NewReader(conn)
	for range answers {
		resp, err := http.ReadResponse(r, nil)
		if err != nil {
			return err
		}
		if _, err := io.Copy(io.Discard, resp.Body); err != nil {
			return err
		}
		left := strings.Join(resp.Header["Ratelimit"], ", ")
		none := strings.HasPrefix(left, `"reads";r=0;`) || strings.HasSuffix(left, `"waiting";r=0`)
		switch {
		case resp.StatusCode == http.StatusOK:
			f.passed.Add(1)
		case resp.StatusCode == http.StatusTooManyRequests && resp.Header.Get("Retry-After") != "" && none:
			f.refused.Add(1)
		default:
			return fmt.Errorf("%s with RateLimit: %s", resp.Status, left)
		}
	}
	return nil
}
