package stack

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"orderflow.internal/hack/topology"
)

// adminUser may do everything at the stack's own broker; no service has its password.
const adminUser = "admin"

// topology is what the charts render to, without passwords; hack/generate writes it.
func (o Options) topology() (*topology.Definitions, error) {
	path := o.Definitions
	if path == "" {
		path = filepath.Join(o.Root, topology.Path)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("the broker's topology: %w", err)
	}
	var d topology.Definitions
	if err := json.Unmarshal(text, &d); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return &d, nil
}

// WithPasswords returns the definitions with a password hash for each user, and with an administrator unless its name
// is empty.
func WithPasswords(d topology.Definitions, password func(user string) string, admin string) ([]byte, error) {
	d.Users = slices.Clone(d.Users)
	if admin != "" {
		d.Users = append(d.Users, topology.User{Name: admin, Tags: []string{"administrator"}})
		d.Permissions = append(slices.Clone(d.Permissions), topology.Permission{
			User: admin, Vhost: d.Vhosts[0].Name, Configure: ".*", Write: ".*", Read: ".*",
		})
	}
	for i := range d.Users {
		d.Users[i].PasswordHash = hashPassword(password(d.Users[i].Name))
		d.Users[i].HashingAlgorithm = "rabbit_password_hashing_sha256"
	}
	return json.MarshalIndent(d, "", "  ")
}

// hashPassword is RabbitMQ's rabbit_password_hashing_sha256: base64(salt + sha256(salt + password)), 4 bytes of salt.
func hashPassword(password string) string {
	var salt [4]byte
	_, _ = rand.Read(salt[:]) // never fails
	sum := sha256.Sum256(slices.Concat(salt[:], []byte(password)))
	return base64.StdEncoding.EncodeToString(slices.Concat(salt[:], sum[:]))
}
