//go:build !linux

package postgres

import "syscall"

// Only Linux has TCP_USER_TIMEOUT; elsewhere, where people develop, the limits
// of the queries do.
func giveUpUnacknowledged(string, string, syscall.RawConn) error { return nil }
