package postgres

import (
	"context"
	"net"
	"time"

	"orderflow.internal/kit/resolve"
)

// names are the databases' hosts, which are looked up for each new connection.
var names resolve.Names

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

// farewell bounds the end of a pool's connection.
const farewell = time.Second

// connecting marks the context in which a pool makes a connection.
type connecting struct{}

// dialPooled is dial for a pool. To end a connection in an orderly way pgx
// asks the server to cancel what it was doing, over another connection, and
// then waits for its end, 15 seconds in all; the pool counts the connection
// until then. When all of them are silent, work would wait for as long although
// new ones could be made. So both are cut short.
func dialPooled(ctx context.Context, network, address string) (net.Conn, error) {
	if ctx.Value(connecting{}) != nil {
		conn, err := dial(ctx, network, address)
		if err != nil {
			return nil, err
		}
		return brief{conn}, nil
	}
	ctx, cancel := context.WithTimeout(ctx, farewell)
	defer cancel()
	conn, err := dial(ctx, network, address)
	if err != nil {
		return nil, err
	}
	return conn, conn.SetDeadline(time.Now().Add(farewell))
}

// brief is a connection that takes no deadline further away than farewell: pgx
// sets deadlines in the past to interrupt it, and one in the future only to end
// it.
type brief struct{ net.Conn }

func (c brief) SetDeadline(t time.Time) error {
	if latest := time.Now().Add(farewell); t.After(latest) {
		t = latest
	}
	return c.Conn.SetDeadline(t)
}
