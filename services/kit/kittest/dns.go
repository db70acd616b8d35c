package kittest

import (
	"context"
	"net"
	"sync/atomic"
	"testing"

	"golang.org/x/net/dns/dnsmessage"
)

// DNS is a name server on the loopback interface that knows one name.
type DNS struct {
	// Silent servers answer nothing. They read what they are asked.
	Silent atomic.Bool
	asked  atomic.Int64
}

// Asked is how many questions have come.
func (d *DNS) Asked() int { return int(d.asked.Load()) }

// OnlyName has this process look up names with a server of its own until the end
// of the test, which knows that name is at 127.0.0.1. Such a test cannot run in
// parallel with others.
func OnlyName(t testing.TB, name string) *DNS {
	t.Helper()
	socket, err := (&net.ListenConfig{}).ListenPacket(t.Context(), "udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := &DNS{}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		question := make([]byte, 512)
		for {
			n, client, err := socket.ReadFrom(question)
			if err != nil {
				return
			}
			server.asked.Add(1)
			if answer := answerTo(question[:n], name); answer != nil && !server.Silent.Load() {
				_, _ = socket.WriteTo(answer, client) // whoever asked may have gone
			}
		}
	}()
	before := net.DefaultResolver
	net.DefaultResolver = &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "udp", socket.LocalAddr().String())
	}}
	t.Cleanup(func() {
		net.DefaultResolver = before
		if err := socket.Close(); err != nil {
			t.Error(err)
		}
		<-ended
	})
	return server
}

// answerTo is nil for what is not a question.
func answerTo(text []byte, name string) []byte {
	var m dnsmessage.Message
	if m.Unpack(text) != nil || len(m.Questions) != 1 {
		return nil
	}
	q := m.Questions[0]
	m = dnsmessage.Message{Header: dnsmessage.Header{ID: m.ID, Response: true, Authoritative: true},
		Questions: m.Questions}
	switch {
	case q.Name.String() != name+".":
		m.RCode = dnsmessage.RCodeNameError
	case q.Type == dnsmessage.TypeA:
		m.Answers = []dnsmessage.Resource{{
			Header: dnsmessage.ResourceHeader{Name: q.Name, Class: q.Class, TTL: 1},
			Body:   &dnsmessage.AResource{A: [4]byte{127, 0, 0, 1}},
		}}
	}
	packed, err := m.Pack()
	if err != nil {
		return nil
	}
	return packed
}
