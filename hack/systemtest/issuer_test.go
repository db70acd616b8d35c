package systemtest

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/google/uuid"

	"orderflow.internal/hack/stack"
	"orderflow.internal/kit/kittest"
)

// Under load, with new tokens all the time, the issuer changes its keys and goes away for a while: no request fails,
// and nobody is signed out.
func TestEnduringIssuer(t *testing.T) {
	s, issuer := startGuarded(t, map[string]string{"LIMIT_READS": "none", "LIMIT_WRITES": "none"})
	e := &estate{t: t, issuer: issuer, base: s.BaseURL(), ada: uuid.New(), operations: issuer.Scoped(t, "operations")}
	e.product = e.newProduct()
	asked := load(t, s, issuer, e.product)
	enough := func(what string) {
		t.Helper()
		from := asked.Load()
		eventually(t, time.Minute, what, func(context.Context) error {
			if n := asked.Load() - from; n < 40 {
				return fmt.Errorf("%d requests", n)
			}
			return nil
		})
	}
	enough("requests with the first key")
	// Three new keys within seconds, however fast the machine is, are as many as the services look for: a fourth would
	// have to wait for its turn (see kit/identity).
	for _, algorithm := range []jose.SignatureAlgorithm{jose.ES256, jose.EdDSA} {
		issuer.Rotate(t, algorithm)
		enough("requests with a key for " + string(algorithm))
	}
	issuer.Away(true)
	<-time.After(enduring(3*time.Second, 5*time.Minute))
	enough("requests while the issuer is away")
	issuer.Away(false)
	issuer.Rotate(t, jose.RS256)
	enough("requests with the next key")
	t.Logf("%d requests, each with a token of its own", asked.Load())
}

// load places and reads orders, each request with a new token, until the test ends. Every one must succeed.
func load(t *testing.T, s *stack.Stack, issuer *kittest.Issuer, product uuid.UUID) (asked *atomic.Int64) {
	t.Helper()
	asked = new(atomic.Int64)
	ctx, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	var working sync.WaitGroup
	t.Cleanup(func() {
		stop()
		working.Wait()
	})
	for range 4 {
		working.Go(func() {
			customer := uuid.New()
			bodies := map[string]string{http.MethodPost: fmt.Sprintf(`{"productId":%q,"quantity":1}`, product)}
			for ctx.Err() == nil {
				for method, want := range map[string]int{http.MethodPost: http.StatusAccepted, http.MethodGet: http.StatusOK} {
					req, err := http.NewRequestWithContext(ctx, method, s.BaseURL()+"/orders", strings.NewReader(bodies[method]))
					if err != nil {
						t.Error(err)
						return
					}
					req.Header = http.Header{
						"Content-Type": {"application/json"}, "Prefer": {"respond-async"},
						"Authorization": {"Bearer " + issuer.Customer(t, customer)},
					}
					resp, err := http.DefaultClient.Do(req)
					if ctx.Err() != nil {
						return
					}
					if err != nil {
						t.Errorf("%s /orders: %v", method, err)
						return
					}
					text, _ := io.ReadAll(resp.Body)
					_ = resp.Body.Close() // read to its end
					if resp.StatusCode != want {
						t.Errorf("%s /orders: %s %s", method, resp.Status, text)
					}
					asked.Add(1)
				}
				<-time.After(enduring(5*time.Millisecond, 50*time.Millisecond))
			}
		})
	}
	return asked
}
