package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	amqp "github.com/rabbitmq/amqp091-go"
	"go.yaml.in/yaml/v3"
)

// What is printed for a broker without operators can be imported into one, and lets a service do its work there and
// no other.
func TestDefinitionsCanBeImported(t *testing.T) {
	management, broker := os.Getenv("ORDERFLOW_TEST_MANAGEMENT_URL"), os.Getenv("ORDERFLOW_TEST_AMQP_URL")
	if management == "" || broker == "" {
		t.Fatal("ORDERFLOW_TEST_MANAGEMENT_URL and ORDERFLOW_TEST_AMQP_URL are required: run hack/test hack")
	}
	vhost := fmt.Sprintf("imported-%d", os.Getpid())
	root, err := filepath.Abs("../../..")
	if err != nil {
		t.Fatal(err)
	}
	secrets := filepath.Join(t.TempDir(), "secrets.yaml")
	prefix := vhost + "-"
	cmd := exec.CommandContext(t.Context(), filepath.Join(root, "hack/definitions"), "--vhost", vhost, "--prefix", prefix,
		"--secrets", secrets,
		// No operator, as where this is for; and a broker that may be an old one.
		"--values", filepath.Join(root, "charts/orderflow/ci/no-operators-values.yaml"),
		"--set", "global.rabbitmq.consumerDisconnectedMilliseconds=0")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	definitions, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v\n%s", err, &stderr)
	}
	call := func(ctx context.Context, method, path string, body io.Reader) {
		t.Helper()
		req, err := http.NewRequestWithContext(ctx, method, management+"/api/"+path, body)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", "application/json")
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		if text, _ := io.ReadAll(res.Body); res.StatusCode >= 300 {
			t.Fatalf("%s %s: %s %s", method, path, res.Status, text)
		}
	}
	call(t.Context(), http.MethodPost, "definitions", bytes.NewReader(definitions))
	passwords := importedUsers(t, secrets)
	t.Cleanup(func() {
		ctx := context.WithoutCancel(t.Context())
		call(ctx, http.MethodDelete, "vhosts/"+vhost, nil)
		for user := range passwords {
			call(ctx, http.MethodDelete, "users/"+user, nil)
		}
	})
	if len(passwords) != 4 { // orders, products, customers, deadletters
		t.Fatalf("Secrets of %d users", len(passwords))
	}
	u, err := url.Parse(broker)
	if err != nil {
		t.Fatal(err)
	}
	u.User, u.Path = url.UserPassword(prefix+"orders", passwords[prefix+"orders"]), "/"+vhost
	for key, want := range map[string]string{"order.created": "", "stock.reserved": "ACCESS_REFUSED"} {
		if err := publish(t, u.String(), key); (want == "") != (err == nil) ||
			(err != nil && !strings.Contains(err.Error(), want)) {
			t.Errorf("orders publishes %s: %v", key, err)
		}
	}
}

// importedUsers are the users of a file of Secrets, with their passwords.
func importedUsers(t *testing.T, file string) map[string]string {
	t.Helper()
	text, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer text.Close()
	users := map[string]string{}
	for dec := yaml.NewDecoder(text); ; {
		var s struct {
			Metadata struct{ Name string }
			Data     map[string]string `yaml:"stringData"`
		}
		if err := dec.Decode(&s); errors.Is(err, io.EOF) {
			return users
		} else if err != nil {
			t.Fatal(err)
		}
		if want := s.Data["username"] + "-broker"; s.Metadata.Name != want {
			t.Errorf("Secret %s, want %s", s.Metadata.Name, want)
		}
		users[s.Data["username"]] = s.Data["password"]
	}
}

// publish sends one message that must find a queue.
func publish(t *testing.T, broker, key string) error {
	t.Helper()
	conn, err := amqp.Dial(broker)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	channel, err := conn.Channel()
	if err != nil {
		t.Fatal(err)
	}
	closed := channel.NotifyClose(make(chan *amqp.Error, 1))
	returned := channel.NotifyReturn(make(chan amqp.Return, 1))
	if err := channel.Confirm(false); err != nil {
		t.Fatal(err)
	}
	confirm, err := channel.PublishWithDeferredConfirmWithContext(t.Context(), "orders.exchange", key, true, false,
		amqp.Publishing{Body: []byte("{}")})
	if err != nil {
		return err
	}
	select {
	case err := <-closed:
		return err
	case r := <-returned:
		t.Errorf("%s found no queue: %s", key, r.ReplyText)
	case <-confirm.Done():
		if !confirm.Acked() { // a channel that is closed confirms nothing
			return <-closed
		}
	case <-t.Context().Done():
		return t.Context().Err()
	}
	return nil
}
