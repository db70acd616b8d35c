package proxy

import (
	"net"
	"net/http"
	"net/http/httptest"
	"testing"

	"orderflow.internal/kit/kittest"
)

func TestServicesAreReachedWhileTheNameServerIsSilent(t *testing.T) {
	service := httptest.NewServer(http.NotFoundHandler())
	defer service.Close()
	_, port, err := net.SplitHostPort(service.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	server := kittest.OnlyName(t, "orders.test")
	transport := NewTransport(AnswerTimeout)
	for _, silent := range []bool{false, true} {
		server.Silent.Store(silent)
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://orders.test:"+port, nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Close = true // the next one connects again
		resp, err := transport.RoundTrip(req)
		if err != nil {
			t.Fatalf("silent %t: %v", silent, err)
		}
		if err := resp.Body.Close(); err != nil {
			t.Error(err)
		}
	}
}
