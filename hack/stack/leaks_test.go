package stack

import (
	"os"
	"path/filepath"
	"testing"
)

func TestLeaksAreFound(t *testing.T) {
	dir := t.TempDir()
	const password = "R5QX2VJ7"
	s := &Service{process: newProcess(dir, "orders"), stack: &Stack{secrets: secrets{"orders": password}}}
	if err := os.MkdirAll(filepath.Dir(s.log), 0o755); err != nil {
		t.Fatal(err)
	}
	for line, leaks := range map[string]bool{
		"broker connected, connection=orders":                              false,
		"failed to connect to user=orders database=orders at 127.0.0.1:50": false,
		"Authorization: Bearer eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJhZGEifQ.x":  true,
		"dial amqp://orders:hunter2@127.0.0.1:5672/":                       true,
		"added ada.lovelace@example.com":                                   true,
		"the password is " + password:                                      true,
		"the customer is Ada":                                              true,
	} {
		if err := os.WriteFile(s.log, []byte("first\n"+line+"\nlast\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := s.Leaks("is Ada"); (err != nil) != leaks {
			t.Errorf("%q: %v", line, err)
		}
	}
}
