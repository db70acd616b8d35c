package postgres

import "net"

// Socket is what is below a pool's connection.
func Socket(conn net.Conn) net.Conn { return conn.(brief).Conn }
