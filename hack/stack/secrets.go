package stack

import (
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// secrets are the generated passwords of a stack by name, kept in a file only this user can read.
type secrets struct {
	path   string
	values map[string]string
}

func openSecrets(dir string) (*secrets, error) {
	s := &secrets{path: filepath.Join(dir, "secrets.json"), values: make(map[string]string)}
	text, err := os.ReadFile(s.path)
	if errors.Is(err, os.ErrNotExist) {
		return s, nil
	}
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(text, &s.values); err != nil {
		return nil, fmt.Errorf("%s: %w", s.path, err)
	}
	return s, nil
}

// get returns the named password, made and stored on first use.
func (s *secrets) get(name string) (string, error) {
	if v, ok := s.values[name]; ok {
		return v, nil
	}
	s.values[name] = rand.Text()
	text, err := json.MarshalIndent(s.values, "", "  ")
	if err != nil {
		return "", err
	}
	if err := os.WriteFile(s.path, append(text, '\n'), 0o600); err != nil {
		return "", err
	}
	return s.values[name], nil
}
