package kittest

import (
	"net"
	"testing"
	"time"
)

// Eventually polls a condition for which there is no signal, and fails the test
// when it does not come true within a minute: many tests run side by side, on slow
// machines as well.
func Eventually(t testing.TB, what string, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !is(); <-time.After(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within a minute: %s", what)
		}
	}
}

// Listens waits until something listens at the address.
func Listens(t testing.TB, addr string) {
	t.Helper()
	Eventually(t, "something listens at "+addr, func() bool {
		conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", addr)
		if err == nil {
			_ = conn.Close() // it was only there to see
		}
		return err == nil
	})
}
