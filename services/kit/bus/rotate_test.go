package bus_test

import (
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"testing"

	"orderflow.internal/kit/bus"
	"orderflow.internal/kit/kittest"
)

// The procedure of docs/secrets.md: the broker's user gets another password, and
// then the files do. Connections that are open do not notice; one that is lost in
// between comes back when the files are right.
func TestABrokerPasswordIsReplacedWithoutARestart(t *testing.T) {
	v := kittest.Broker(t, []byte(topology))
	u, err := url.Parse(v.AdminURL)
	if err != nil {
		t.Fatal(err)
	}
	user := v.Name + "_rotated"
	setPassword := func(password string) {
		t.Helper()
		v.Manage(t, http.MethodPut, "/api/users/"+user, map[string]any{"password": password, "tags": ""})
	}
	setPassword("first")
	t.Cleanup(func() { v.Manage(t, http.MethodDelete, "/api/users/"+user, nil) })
	v.Manage(t, http.MethodPut, "/api/permissions/"+v.Name+"/"+user,
		map[string]any{"configure": "", "write": ".*", "read": ".*"})
	folder := t.TempDir()
	cfg := config(v)
	cfg.UsernameFile, cfg.PasswordFile = filepath.Join(folder, "username"), filepath.Join(folder, "password")
	write := func(file, text string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(cfg.UsernameFile, user)
	write(cfg.PasswordFile, "first")
	u.User = nil
	cfg.URL = u.String()
	p := bus.NewPublisher(cfg, "rotated", exchange, redelivery)
	start(t, p.Run)
	awaitPublisher(t, p)
	publish := func(when string, from int) {
		t.Helper()
		for _, err := range p.Publish(t.Context(), events(t, from, from+10)) {
			if err != nil {
				t.Errorf("%s: %v", when, err)
			}
		}
	}
	publish("with the first password", 0)
	setPassword("second")
	publish("on the open connection", 10)
	for _, name := range v.Connections(t) {
		v.CloseConnection(t, name)
	}
	until(t, "the connection to be lost", func() bool { return p.Ready(t.Context()) != nil })
	write(cfg.PasswordFile, "second")
	awaitPublisher(t, p)
	publish("with the second password", 20)
}
