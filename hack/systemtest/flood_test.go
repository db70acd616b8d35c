package systemtest

import (
	"bufio"
	"cmp"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
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
	const perHour = 1000
	s, issuer := startGuarded(t, map[string]string{"LIMIT_READS": enduring(fmt.Sprintf("%d/1h", perHour), "2000/10s")})
	rate, lasts, rounds := enduring(2000, 10_000), enduring(2*time.Second, 10*time.Second), enduring(1, 3)
	beside := enduring(4*time.Second, 30*time.Second) // before and after the rounds
	load := steady(s, 30, time.Duration(2*rounds)*lasts+beside)
	load.Tokens = oauth2.StaticTokenSource(&oauth2.Token{AccessToken: issuer.Scoped(t, "operations")})
	greedy := flood{s: s, token: issuer.Customer(t, uuid.New())}
	var healthy, flooded []window
	r := during(t.Context(), t, load, func(time.Time) {
		for range rounds {
			from := time.Now()
			<-time.After(lasts)
			to := time.Now()
			if err := greedy.send(t.Context(), rate, int(float64(rate)*lasts.Seconds())); err != nil {
				t.Error(err)
			}
			healthy, flooded = append(healthy, window{from, to}), append(flooded, window{to, time.Now()})
			sent := greedy.passed.Load() + greedy.refused.Load()
			t.Logf("%d answers after %s: %d passed", sent, time.Since(to), greedy.passed.Load())
		}
	})
	promised(t, r, load.Orders, false)
	if !endures() {
		if passed := greedy.passed.Load(); passed != perHour {
			t.Errorf("%d requests passed, want %d", passed, perHour)
		}
		return
	}
	if took := flooded[0].to.Sub(flooded[0].from); took > lasts*11/10 {
		t.Errorf("that was no flood: it took %s", took)
	}
	unaffected(t, r, healthy, flooded)
}

// flood is what one client sends without a care for the answers.
type flood struct {
	s     *stack.Stack
	token string

	passed, refused atomic.Int64
}

// send sends so many requests a second until it has sent them all, on a few connections, without waiting for the
// answers to one before it sends the next. It is cheap, as the machine of a client would be another one.
func (f *flood) send(ctx context.Context, rate, requests int) error {
	const connections, batch = 20, 10
	address := strings.TrimPrefix(f.s.BaseURL(), "http://")
	text := fmt.Sprintf("GET /orders?limit=1 HTTP/1.1\r\nHost: %s\r\nAuthorization: Bearer %s\r\n\r\n", address, f.token)
	var working errgroup.Group
	for range connections {
		working.Go(func() error {
			conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", address)
			if err != nil {
				return err
			}
			var reading sync.WaitGroup
			var failed error
			reading.Go(func() {
				if failed = f.read(conn, requests/connections); failed != nil {
					_ = conn.Close() // the sender must not wait for it
				}
			})
			tick := time.NewTicker(time.Second * connections * batch / time.Duration(rate))
			defer tick.Stop()
			for range requests / connections / batch {
				if _, err = io.WriteString(conn, strings.Repeat(text, batch)); err != nil {
					break
				}
				<-tick.C
			}
			reading.Wait()
			_ = conn.Close()           // everything was read
			return cmp.Or(failed, err) // the first is why
		})
	}
	return working.Wait()
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
		switch left := resp.Header.Get("RateLimit"); {
		case resp.StatusCode == http.StatusOK:
			f.passed.Add(1)
		case resp.StatusCode == http.StatusTooManyRequests && resp.Header.Get("Retry-After") != "" &&
			strings.HasPrefix(left, `"reads";r=0;`):
			f.refused.Add(1)
		default:
			return fmt.Errorf("%s with RateLimit: %s", resp.Status, left)
		}
	}
	return nil
}
