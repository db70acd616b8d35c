package postgres

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"regexp"
	"slices"
	"strings"

	"github.com/pressly/goose/v3"
)

var (
	migrationName = regexp.MustCompile(`^\d+_\w+\.sql$`)
	upAnnotation  = regexp.MustCompile(`(?m)^-- \+goose Up[ \t]*$`)
	down          = regexp.MustCompile(`(?m)^-- \+goose Down[ \t]*$|\z`)
	noTransaction = regexp.MustCompile(`(?m)^-- \+goose NO TRANSACTION[ \t]*$`)
)

// migrations are a directory of goose's migrations, with limits set in each
// that runs in a transaction.
type migrations struct {
	fs.FS
	texts map[string][]byte // by file name
}

// readMigrations reads and checks all files of fsys.
func readMigrations(fsys fs.FS) (migrations, error) {
	m := migrations{fsys, map[string][]byte{}}
	names, err := fs.Glob(fsys, "*.sql")
	if err != nil {
		return m, err
	}
	var errs []error
	for _, name := range names {
		text, err := fs.ReadFile(fsys, name)
		if err != nil {
			return m, err
		}
		if err := checkMigration(name, string(text)); err != nil {
			errs = append(errs, fmt.Errorf("migration %s: %w", name, err))
		}
		m.texts[name] = withLimits(text)
	}
	return m, errors.Join(errs...)
}

// withLimits sets the limits of a migration that runs in a transaction, there
// and not in the session, which may be a pooler's. Its statements are sent
// together: goose would split the body of a function.
func withLimits(text []byte) []byte {
	up := upAnnotation.FindIndex(text)
	if up == nil || noTransaction.Match(text) {
		return text
	}
	end := up[1] + down.FindIndex(text[up[1]:])[0]
	body := text[up[1]:end]
	if !bytes.Contains(body, []byte("-- +goose StatementBegin")) {
		body = fmt.Appendf(nil, "\n-- +goose StatementBegin\n%s\n-- +goose StatementEnd\n", body)
	}
	return fmt.Appendf(nil, `%s
set local lock_timeout = %d;
set local statement_timeout = 0;
set local client_min_messages = warning;
%s%s`, text[:up[1]], lockWait.Milliseconds(), body, text[end:])
}

func checkMigration(name, text string) error {
	switch {
	case !migrationName.MatchString(name):
		return errors.New("its name must be a number, an underscore and words, as in 004_names.sql")
	case !upAnnotation.MatchString(text):
		return errors.New(`lacks the line "-- +goose Up" before its statements`)
	case noTransaction.MatchString(text) && !strings.Contains(strings.ToLower(text), "if not exists"):
		return errors.New(`runs outside a transaction, so it may have to run twice: say "if not exists"`)
	}
	return nil
}

// pendingOutsideTransaction reports whether a migration that runs outside a
// transaction is about to be applied.
func (m migrations) pendingOutsideTransaction(ctx context.Context, provider *goose.Provider) (bool, error) {
	outside := func(name string) bool { return noTransaction.Match(m.texts[name]) }
	if !slices.ContainsFunc(slices.Collect(maps.Keys(m.texts)), outside) {
		return false, nil
	}
	status, err := provider.Status(ctx)
	return slices.ContainsFunc(status, func(s *goose.MigrationStatus) bool {
		return s.State == goose.StatePending && outside(s.Source.Path)
	}), err
}

// Open implements [fs.FS].
func (m migrations) Open(name string) (fs.File, error) {
	file, err := m.FS.Open(name)
	text, ok := m.texts[name]
	if err != nil || !ok {
		return file, err
	}
	return changed{file, bytes.NewReader(text)}, nil
}

// changed is a file with another text.
type changed struct {
	fs.File
	text *bytes.Reader
}

// Read implements [fs.File].
func (c changed) Read(p []byte) (int, error) { return c.text.Read(p) }
