package web

import (
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"time"
)

// Each of its writes comes to its end in time; all of them together do not.
func TestClientThatReadsALittleNowAndThenIsGivenUp(t *testing.T) {
	const piece = 1 << 10
	server, client := net.Pipe()
	defer client.Close()
	conn := &timedConn{Conn: server, timeout: time.Second}
	go func() {
		defer conn.Close()
		for buffer := make([]byte, piece); ; <-time.After(2 * time.Second * piece / leastRate) {
			if _, err := io.ReadFull(client, buffer); err != nil {
				return // given up
			}
		}
	}()
	for n := range 100 {
		if _, err := conn.Write(make([]byte, piece)); err != nil {
			if !errors.Is(err, os.ErrDeadlineExceeded) || n < 2 {
				t.Fatalf("write %d: %v", n+1, err)
			}
			return
		}
	}
	t.Error("a client at half the least rate was served for more than ten times the time")
}

func TestClientThatReadsAtOnceGetsWholeAnswer(t *testing.T) {
	server, client := net.Pipe()
	defer client.Close()
	conn := &timedConn{Conn: server, timeout: time.Second}
	read := make(chan int64, 1)
	go func() {
		n, _ := io.Copy(io.Discard, client) // until the connection is closed
		read <- n
	}()
	const size = 4 << 20
	for range 4 {
		if _, err := conn.Write(make([]byte, size/4)); err != nil {
			t.Fatal(err)
		}
	}
	if err := conn.Close(); err != nil {
		t.Fatal(err)
	}
	if n := <-read; n != size {
		t.Errorf("%d of %d bytes", n, size)
	}
}
