package stack

import (
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// secrets are the generated passwords of a stack by name.
type secrets map[string]string

// secretsFile keeps them; only this user can read it.
func (o Options) secretsFile() string { return filepath.Join(o.dir(), "secrets.json") }

// readSecrets returns those that an earlier start has made.
func (o Options) readSecrets() (secrets, error) {
	s := secrets{}
	text, err := os.ReadFile(o.secretsFile())
	if errors.Is(err, os.ErrNotExist) {
		return s, nil
	}
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(text, &s); err != nil {
		return nil, fmt.Errorf("%s: %w", o.secretsFile(), err)
	}
	return s, nil
}

// makeSecrets makes and keeps those that the stack needs and does not have yet.
func (s *Stack) makeSecrets() error {
	names := []string{"postgres", "rabbitmq-" + adminUser}
	for _, spec := range s.specs {
		if spec.database {
			names = append(names, "postgres-"+spec.name)
		}
	}
	for _, user := range s.Broker.Users() {
		names = append(names, "rabbitmq-"+user)
	}
	for _, name := range names {
		if s.secrets[name] == "" {
			s.secrets[name] = rand.Text()
		}
	}
	text, err := json.MarshalIndent(s.secrets, "", "  ")
	if err != nil {
		return err
	}
	return replace(s.Options.secretsFile(), append(text, '\n'))
}
