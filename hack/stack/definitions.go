package stack

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
)

// definitionsPath is the topology that the charts render to; hack/generate writes it.
const definitionsPath = "services/events/topology/definitions.json"

// adminUser may do everything at the stack's own broker; no service has its password.
const adminUser = "admin"

// topology is what a RabbitMQ definitions file declares, without passwords. Parts that are only handed on stay as
// they were read.
type topology struct {
	fields map[string]json.RawMessage
	users  []map[string]any
	vhosts []string
	queues []string
}

func readTopology(path string) (*topology, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("the broker's topology: %w (hack/generate writes it)", err)
	}
	t, err := parseTopology(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return t, nil
}

func parseTopology(text []byte) (*topology, error) {
	var t topology
	if err := json.Unmarshal(text, &t.fields); err != nil {
		return nil, err
	}
	var vhosts, queues []struct{ Name string }
	err := errors.Join(unmarshalField(t.fields, "users", &t.users),
		unmarshalField(t.fields, "vhosts", &vhosts), unmarshalField(t.fields, "queues", &queues))
	if err != nil {
		return nil, err
	}
	for _, q := range queues {
		t.queues = append(t.queues, q.Name)
	}
	for _, v := range vhosts {
		t.vhosts = append(t.vhosts, v.Name)
	}
	if len(t.vhosts) == 0 {
		t.vhosts = []string{"/"}
	}
	return &t, nil
}

func unmarshalField(fields map[string]json.RawMessage, name string, into any) error {
	text, ok := fields[name]
	if !ok {
		return nil
	}
	if err := json.Unmarshal(text, into); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}

// withPasswords returns the definitions with a password hash for each user, and for the administrator when it has one.
func (t *topology) withPasswords(password func(user string) (string, error), admin string) ([]byte, error) {
	users := make([]map[string]any, 0, len(t.users)+1)
	users = append(users, t.users...)
	var permissions []map[string]any
	if err := unmarshalField(t.fields, "permissions", &permissions); err != nil {
		return nil, err
	}
	if admin != "" {
		users = append(users, map[string]any{"name": admin, "tags": []string{"administrator"}})
		for _, vhost := range t.vhosts {
			permissions = append(permissions, map[string]any{
				"user": admin, "vhost": vhost, "configure": ".*", "write": ".*", "read": ".*",
			})
		}
	}
	for i, user := range users {
		name, _ := user["name"].(string)
		if name == "" {
			return nil, fmt.Errorf("user %d has no name", i)
		}
		plain, err := password(name)
		if err != nil {
			return nil, err
		}
		with := map[string]any{
			"password_hash": hashPassword(plain), "hashing_algorithm": "rabbit_password_hashing_sha256",
		}
		for key, value := range user {
			with[key] = value
		}
		users[i] = with
	}
	out := make(map[string]any, len(t.fields)+2)
	for key, value := range t.fields {
		out[key] = value
	}
	out["users"], out["permissions"] = users, permissions
	if _, ok := out["vhosts"]; !ok {
		out["vhosts"] = []map[string]any{{"name": t.vhosts[0]}}
	}
	return json.MarshalIndent(out, "", "  ")
}

// hashPassword is RabbitMQ's rabbit_password_hashing_sha256: base64(salt + sha256(salt + password)), 4 bytes of salt.
func hashPassword(password string) string {
	var salt [4]byte
	_, _ = rand.Read(salt[:]) // never fails
	sum := sha256.Sum256(slices.Concat(salt[:], []byte(password)))
	return base64.StdEncoding.EncodeToString(slices.Concat(salt[:], sum[:]))
}

func (o Options) topology() (*topology, error) {
	path := o.Definitions
	if path == "" {
		path = filepath.Join(o.Root, definitionsPath)
	}
	return readTopology(path)
}
