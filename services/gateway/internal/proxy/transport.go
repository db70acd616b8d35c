package proxy

import (
	"context"
	"math/rand/v2"
	"net"
	"net/http"
	"sync"
	"time"

	"orderflow.internal/kit/resolve"
	"orderflow.internal/kit/web"
)

// Times of the connections to services.
const (
	// AnswerTimeout leaves a margin over the 30 s that a client may ask orders
	// to wait.
	AnswerTimeout = 35 * time.Second

	// BriefTimeout is for requests that no client asks to wait and that change
	// little: services answer them within 5 s (web.Within), so an instance that
	// takes longer is stuck. With more time such requests would take all slots of
	// the service, those of its other instances too.
	BriefTimeout = 8 * time.Second

	dialTimeout = 2 * time.Second

	// idleTimeout is below the time after which a service closes a connection that
	// no request has come over yet: there are such, as a request that waits for a
	// dial takes a connection that becomes free first. Whoever closes first must
	// not be the one who is sent requests.
	idleTimeout = web.HeaderTimeout - time.Second

	// renewal is how often all connections are given up.
	renewal = 30 * time.Second
)

// bufferSize is that of each buffer a request in flight needs, in bytes: enough
// for the usual request and answer to be one write, and small since thousands
// may wait. What is larger is not copied through the buffers.
const bufferSize = 1 << 10

// NewTransport returns the transport for all services of a process. It speaks
// HTTP/1.1 and keeps as many connections as are in use at busy times; the two
// per host of the default one would be opened and closed all the time. An
// answer has to begin within answerTimeout, usually AnswerTimeout.
func NewTransport(answerTimeout time.Duration) *Transport {
	var names resolve.Names
	return newTransport(renewal, &http.Transport{
		DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			return names.Dial(ctx, net.Dialer{Timeout: dialTimeout, KeepAlive: 15 * time.Second}, network, address)
		},
		TLSHandshakeTimeout:    dialTimeout,
		MaxIdleConnsPerHost:    512,
		IdleConnTimeout:        idleTimeout,
		ResponseHeaderTimeout:  answerTimeout,
		MaxResponseHeaderBytes: 64 << 10,
		ReadBufferSize:         bufferSize,
		WriteBufferSize:        bufferSize,
		DisableCompression:     true, // pass on what the client asked for
	})
}

// Transport begins with new connections every 30 s or so: an instance that
// comes to those behind an address gets a share of the connections, and with
// them of the requests, only when connections are made.
type Transport struct {
	age time.Duration

	mu      sync.Mutex
	current *http.Transport
	until   time.Time
}

func newTransport(age time.Duration, first *http.Transport) *Transport {
	t := &Transport{age: age, current: first}
	t.begin()
	return t
}

// begin spreads the renewals of gateways that were started together.
func (t *Transport) begin() { t.until = time.Now().Add(t.age/2 + rand.N(t.age)) } //nolint:gosec // jitter is no secret

// RoundTrip is that of http.Transport.
func (t *Transport) RoundTrip(req *http.Request) (*http.Response, error) {
	return t.fresh().RoundTrip(req)
}

func (t *Transport) fresh() *http.Transport {
	t.mu.Lock()
	defer t.mu.Unlock()
	if time.Now().After(t.until) {
		old := t.current
		t.current = old.Clone()
		t.begin()
		// Those in use are closed when they become idle.
		old.CloseIdleConnections()
	}
	return t.current
}

// CloseIdleConnections is that of http.Transport.
func (t *Transport) CloseIdleConnections() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.current.CloseIdleConnections()
}
