// Package resolve looks up hosts, and remembers what it found. When a node is
// lost on which a DNS server ran, a cluster sends it lookups for another minute:
// half of them are never answered, each of the names in a search list may be one
// of those, and nothing could connect although all addresses are what they were.
package resolve

import (
	"context"
	"errors"
	"net"
	"sync"
	"time"
)

// Patience is how long a lookup may take whose answer is known from before.
const Patience = 500 * time.Millisecond

// Names looks up hosts. The zero value is ready for use.
type Names struct {
	mu    sync.Mutex
	known map[string][]string // the last answer for each host
}

// LookupHost returns the addresses of a host as [net.DefaultResolver] says them
// now. If there is no answer within Patience, or none but that the lookup failed,
// it returns the addresses found last time. That a name does not exist is an
// answer. The error is a [net.DNSError].
func (n *Names) LookupHost(ctx context.Context, host string) ([]string, error) {
	n.mu.Lock()
	known := n.known[host]
	n.mu.Unlock()
	if known != nil {
		short, cancel := context.WithTimeout(ctx, Patience)
		defer cancel()
		ctx = short
	}
	addresses, err := net.DefaultResolver.LookupHost(ctx, host)
	if err == nil {
		n.mu.Lock()
		defer n.mu.Unlock()
		if n.known == nil {
			n.known = map[string][]string{}
		}
		n.known[host] = addresses
		return addresses, nil
	}
	var dns *net.DNSError
	if known == nil || errors.As(err, &dns) && dns.IsNotFound {
		return nil, err
	}
	return known, nil
}

// Dial connects with d to an address of host:port, one after the other as
// [net.Dialer.DialContext] does, but looks up the host itself. Each gets its
// share of the time that d and ctx allow.
func (n *Names) Dial(ctx context.Context, d net.Dialer, network, address string) (net.Conn, error) {
	host, port, err := net.SplitHostPort(address)
	if err != nil || net.ParseIP(host) != nil {
		return d.DialContext(ctx, network, address)
	}
	if d.Timeout > 0 {
		limited, cancel := context.WithTimeout(ctx, d.Timeout)
		defer cancel()
		ctx = limited
	}
	addresses, err := n.LookupHost(ctx, host)
	if err != nil {
		return nil, &net.OpError{Op: "dial", Net: network, Err: err}
	}
	for i, ip := range addresses {
		var conn net.Conn
		if conn, err = dialOne(ctx, d, network, net.JoinHostPort(ip, port), len(addresses)-i); err == nil {
			return conn, nil
		}
	}
	return nil, err
}

// dialOne leaves time for the others that may have to be tried after it.
func dialOne(ctx context.Context, d net.Dialer, network, address string, left int) (net.Conn, error) {
	if deadline, ok := ctx.Deadline(); ok && left > 1 {
		share, cancel := context.WithTimeout(ctx, time.Until(deadline)/time.Duration(left))
		defer cancel()
		ctx = share
	}
	return d.DialContext(ctx, network, address)
}
