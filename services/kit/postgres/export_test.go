package postgres

import (
	"net"
	"time"
)

// Socket is what is below a pool's connection.
func Socket(conn net.Conn) net.Conn { return conn.(brief).Conn }

// Sleep makes c what it is after its host has slept: the database's
// and the wall clock have gone on, the monotonic one has not.
func (c *Clock) Sleep(d time.Duration) {
	r := c.last.Load()
	c.last.Store(&reading{r.at, r.wall.Add(-d), r.database.Add(-d)})
}

// Step makes c what it is after its host's wall clock was set ahead.
func (c *Clock) Step(d time.Duration) {
	r := c.last.Load()
	c.last.Store(&reading{r.at, r.wall.Add(-d), r.database})
}
