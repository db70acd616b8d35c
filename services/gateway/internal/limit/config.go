package limit

import (
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"
)

// Config says how much of the gateway one caller may have. A gateway counts what
// it sees itself: with several, a caller whose requests are spread over them may
// have that many times as much.
type Config struct {
	Reads   Quota `env:"LIMIT_READS" help:"most GET requests of one caller, as in 2000/10s; none: no limit (default 2000/10s with AUTH_ISSUER, else none)"`
	Writes  Quota `env:"LIMIT_WRITES" help:"most other requests of one caller (default 500/10s with AUTH_ISSUER, else none)"`
	Waiting Quota `env:"LIMIT_WAITING" help:"most requests and event streams of one caller in progress at once, of which at most 128 may be anything but POST /orders and event streams (default 400 with AUTH_ISSUER, else none)"`

	TrustedProxies []netip.Prefix `env:"TRUSTED_PROXIES" help:"networks, separated by commas, of the proxies before the gateway: from them X-Forwarded-For is believed, to tell callers without a token apart"`
}

// Quota is a number of requests in a time or, without one, at a time. The zero
// value is not set; None is no limit.
type Quota struct {
	Requests int
	Window   time.Duration // whole seconds
	None     bool
}

// UnmarshalText reads 2000/10s, 400 or none.
func (q *Quota) UnmarshalText(text []byte) error {
	if string(text) == "none" {
		*q = Quota{None: true}
		return nil
	}
	number, window, timed := strings.Cut(string(text), "/")
	n, err := strconv.Atoi(number)
	var w time.Duration
	if err == nil && timed {
		w, err = time.ParseDuration(window)
	}
	if err != nil {
		return errors.New("must be none or a number of requests, as in 400 or 2000/10s")
	}
	*q = Quota{Requests: n, Window: w}
	return nil
}

// Defaults where there is an issuer. Without one nothing tells callers apart but
// their address, which many may share.
var (
	defaultReads   = Quota{Requests: 2000, Window: 10 * time.Second}
	defaultWrites  = Quota{Requests: 500, Window: 10 * time.Second}
	defaultWaiting = Quota{Requests: 400}
)

func (q Quota) or(fallback Quota) Quota {
	if q == (Quota{}) {
		return fallback
	}
	return q
}

func (q Quota) limited() bool { return q.Requests > 0 }

// Validate reports every bad field.
func (c Config) Validate() error {
	var errs []error
	for name, q := range map[string]Quota{"LIMIT_READS": c.Reads, "LIMIT_WRITES": c.Writes} {
		if q == (Quota{}) || q.None {
			continue
		}
		if q.Requests < 1 || q.Window < time.Second || q.Window > time.Hour || q.Window%time.Second != 0 {
			errs = append(errs, fmt.Errorf("%s: must allow at least one request, in whole seconds up to an hour", name))
		}
	}
	if q := c.Waiting; q != (Quota{}) && !q.None && (q.Requests < 1 || q.Window != 0) {
		errs = append(errs, errors.New("LIMIT_WAITING: must be none or a number of requests"))
	}
	return errors.Join(errs...)
}
