package postgres

import (
	"context"
	"net"
	"time"
)

// dial connects so that a peer from which nothing comes back, not even an
// acknowledgment, is given up within 5 seconds: with data on the way, and
// after 2 idle seconds and 3 probes without.
func dial(ctx context.Context, network, address string) (net.Conn, error) {
	dialer := net.Dialer{
		KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: 2 * time.Second, Interval: time.Second, Count: 3},
		Control:         giveUpUnacknowledged,
	}
	return dialer.DialContext(ctx, network, address)
}
