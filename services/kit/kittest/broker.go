package kittest

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"
)

// Vhost is a virtual host of the test's own, with the topology it asked for.
type Vhost struct {
	Name string
	// AdminURL may do everything in the virtual host.
	AdminURL string
	// UserURLs are the AMQP URLs of the topology's users, by the user's name in
	// it, with just the permissions that the topology gives them.
	UserURLs map[string]string

	management string
}

type definitions struct {
	Users []struct {
		Name string `json:"name"`
	} `json:"users"`
	Permissions      []permission      `json:"permissions"`
	TopicPermissions []topicPermission `json:"topic_permissions"`
	Queues           json.RawMessage   `json:"queues"`
	Exchanges        json.RawMessage   `json:"exchanges"`
	Bindings         json.RawMessage   `json:"bindings"`
	Policies         json.RawMessage   `json:"policies"`
}

type permission struct {
	User      string `json:"user,omitempty"`
	Configure string `json:"configure"`
	Write     string `json:"write"`
	Read      string `json:"read"`
}

type topicPermission struct {
	User     string `json:"user,omitempty"`
	Exchange string `json:"exchange"`
	Write    string `json:"write"`
	Read     string `json:"read"`
}

// Broker makes a virtual host on the broker of ORDERFLOW_TEST_AMQP_URL and
// ORDERFLOW_TEST_MANAGEMENT_URL, both an administrator's, fills it with the
// queues, exchanges, bindings and policies of RabbitMQ definitions, and makes
// users for the ones they name. All of it goes at the end of the test.
func Broker(t testing.TB, topology []byte) Vhost {
	t.Helper()
	var defs definitions
	if err := json.Unmarshal(topology, &defs); err != nil {
		t.Fatalf("read the topology: %v", err)
	}
	v := Vhost{
		Name:       unique(t),
		management: strings.TrimSuffix(env(t, "ORDERFLOW_TEST_MANAGEMENT_URL"), "/"),
		UserURLs:   map[string]string{},
	}
	admin, err := url.Parse(env(t, "ORDERFLOW_TEST_AMQP_URL"))
	if err != nil {
		t.Fatalf("ORDERFLOW_TEST_AMQP_URL: %v", err)
	}
	admin.Path = "/" + v.Name
	v.AdminURL = admin.String()

	v.Manage(t, http.MethodPut, "/api/vhosts/"+v.Name, map[string]any{})
	t.Cleanup(func() { v.Manage(t, http.MethodDelete, "/api/vhosts/"+v.Name, nil) })
	v.Manage(t, http.MethodPut, "/api/permissions/"+v.Name+"/"+admin.User.Username(),
		permission{Configure: ".*", Write: ".*", Read: ".*"})
	v.Manage(t, http.MethodPost, "/api/definitions/"+v.Name, defs.ofVhost(t))
	for _, u := range defs.Users {
		name, password := v.Name+"_"+u.Name, rand.Text()
		v.Manage(t, http.MethodPut, "/api/users/"+name, map[string]any{"password": password, "tags": ""})
		t.Cleanup(func() { v.Manage(t, http.MethodDelete, "/api/users/"+name, nil) })
		for _, p := range defs.Permissions {
			if p.User == u.Name {
				p.User = ""
				v.Manage(t, http.MethodPut, "/api/permissions/"+v.Name+"/"+name, p)
			}
		}
		for _, p := range defs.TopicPermissions {
			if p.User == u.Name {
				p.User = ""
				v.Manage(t, http.MethodPut, "/api/topic-permissions/"+v.Name+"/"+name, p)
			}
		}
		user := *admin
		user.User = url.UserPassword(name, password)
		v.UserURLs[u.Name] = user.String()
	}
	return v
}

// ofVhost are the parts that belong to a virtual host, without its name.
func (d definitions) ofVhost(t testing.TB) map[string]any {
	t.Helper()
	parts := map[string]any{}
	for name, raw := range map[string]json.RawMessage{
		"queues": d.Queues, "exchanges": d.Exchanges, "bindings": d.Bindings, "policies": d.Policies,
	} {
		items := []map[string]any{}
		if len(raw) > 0 {
			if err := json.Unmarshal(raw, &items); err != nil {
				t.Fatalf("read the topology's %s: %v", name, err)
			}
		}
		for _, item := range items {
			delete(item, "vhost")
		}
		parts[name] = items
	}
	return parts
}

// Manage calls the broker's management API and returns the answer's body. A
// status other than 2xx fails the test.
func (v Vhost) Manage(t testing.TB, method, path string, body any) []byte {
	t.Helper()
	status, answer, err := v.manage(method, path, body)
	if err != nil {
		t.Fatalf("%s %s: %v", method, path, err)
	}
	if status/100 != 2 {
		t.Fatalf("%s %s: %d %s", method, path, status, answer)
	}
	return answer
}

func (v Vhost) manage(method, path string, body any) (int, []byte, error) {
	var reader io.Reader
	if body != nil {
		text, err := json.Marshal(body)
		if err != nil {
			return 0, nil, err
		}
		reader = bytes.NewReader(text)
	}
	req, err := http.NewRequestWithContext(context.Background(), method, v.management+path, reader)
	if err != nil {
		return 0, nil, err
	}
	req.Header.Set("Content-Type", "application/json")
	// No connection is kept: tests look for goroutines that are left over.
	client := http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Do(req)
	if err != nil {
		return 0, nil, err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, nil, fmt.Errorf("read answer: %w", err)
	}
	return resp.StatusCode, answer, nil
}

// CloseConnection closes a client's connection from the broker's side. One
// that is gone already is fine.
func (v Vhost) CloseConnection(t testing.TB, name string) {
	t.Helper()
	path := "/api/connections/" + url.PathEscape(name)
	if status, answer, err := v.manage(http.MethodDelete, path, nil); err != nil ||
		(status/100 != 2 && status != http.StatusNotFound) {
		t.Fatalf("DELETE %s: %d %s %v", path, status, answer, err)
	}
}

// Connections waits until the broker's statistics, which lag behind, show
// connections to the virtual host, and returns their names.
func (v Vhost) Connections(t testing.TB) []string {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); {
		var open []struct{ Name string }
		if err := json.Unmarshal(v.Manage(t, http.MethodGet, "/api/vhosts/"+v.Name+"/connections", nil), &open); err != nil {
			t.Fatalf("read connections: %v", err)
		}
		if len(open) > 0 {
			names := make([]string, len(open))
			for i, c := range open {
				names[i] = c.Name
			}
			return names
		}
		<-time.After(100 * time.Millisecond)
	}
	t.Fatal("the broker shows no connection")
	return nil
}
