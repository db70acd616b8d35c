package stack

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// Variables by which hack/test hands its options on to tests that run stacks of their own.
const (
	EnvRabbitMQImage = "ORDERFLOW_TEST_RABBITMQ_IMAGE"
	EnvRace          = "ORDERFLOW_TEST_RACE"
	EnvEndurance     = "ORDERFLOW_TEST_ENDURANCE" // faults last minutes
	// EnvPortOffset moves their ports, for tests that run in several copies of the repository at once. A person sets it.
	EnvPortOffset = "ORDERFLOW_TEST_PORT_OFFSET"
)

// PgBouncer is where its Debian package puts it, which is not on everybody's PATH.
const PgBouncer = "/usr/sbin/pgbouncer"

// TestOptions are the options of a stack for a test: its own folder and ports, and what hack/test was asked for.
func TestOptions(name string, offset int) (Options, error) {
	root, err := FindRoot()
	if err != nil {
		return Options{}, err
	}
	race, _ := strconv.ParseBool(os.Getenv(EnvRace)) // unset means no
	offset, err = TestOffset(offset)
	if err != nil {
		return Options{}, err
	}
	o := Options{Root: root, Name: name, Offset: offset, Race: race, RabbitMQImage: os.Getenv(EnvRabbitMQImage)}
	if missing := o.Missing(); len(missing) > 0 {
		return Options{}, fmt.Errorf("%s is not installed: hack/test installs it", strings.Join(missing, ", "))
	}
	return o, nil
}

// TestOffset is the offset of a stack for tests, moved as EnvPortOffset says.
func TestOffset(offset int) (int, error) {
	raw := os.Getenv(EnvPortOffset)
	if raw == "" {
		return offset, nil
	}
	more, err := strconv.Atoi(raw)
	if err != nil {
		return 0, fmt.Errorf("%s: %w", EnvPortOffset, err)
	}
	return offset + more, nil
}

// Races returns an error with what the race detector has written to the service's log, if anything.
func (s *Service) Races() error {
	text, err := os.ReadFile(s.log)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	const mark = "WARNING: DATA RACE"
	_, report, found := strings.Cut(string(text), mark)
	if !found {
		return nil
	}
	lines := strings.SplitN(report, "\n", 40)
	return errors.New(mark + strings.Join(lines[:len(lines)-1], "\n"))
}

// leaking is what no log may hold: tokens, URLs with passwords, and email addresses.
var leaking = regexp.MustCompile(`eyJ[\w-]{10,}\.[\w-]{10,}|\w+://[^/\s"@]*:[^/\s"@]+@|[\w.+-]+@[\w-]+\.[a-z]{2,}`)

// Leaks returns an error with the first line of the service's log that holds a token, a password of the stack's, an
// email address or one of the others.
func (s *Service) Leaks(others ...string) error {
	log, err := os.ReadFile(s.log)
	if err != nil {
		return err
	}
	words := slices.AppendSeq(slices.Clone(others), maps.Values(s.stack.secrets))
	for line := range strings.Lines(string(log)) {
		known := slices.ContainsFunc(words, func(word string) bool { return strings.Contains(line, word) })
		if known || leaking.MatchString(line) {
			return fmt.Errorf("%s logs what nobody may read there: %s", s.Name(), line)
		}
	}
	return nil
}
