package stack

import (
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"
)

// secrets are the generated passwords of a stack by name, kept in a file only this user can read.
type secrets struct {
	path string

	mu     sync.Mutex // the servers start at the same time
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
	s.mu.Lock()
	defer s.mu.Unlock()
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

// known returns the named password, "" before it was made.
func (s *secrets) known(name string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.values[name]
}

// all returns every password that was made.
func (s *secrets) all() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Collect(maps.Values(s.values))
}

func (s *secrets) remove() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.values)
	return os.RemoveAll(s.path)
}
