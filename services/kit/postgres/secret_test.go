package postgres_test

import (
	"context"
	"errors"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/fstest"
	"time"

	"orderflow.internal/kit/kittest"
	"orderflow.internal/kit/postgres"
)

// syncBuilder is a log for many writers.
type syncBuilder struct {
	mu sync.Mutex
	strings.Builder
}

func (b *syncBuilder) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.Builder.Write(p)
}

func (b *syncBuilder) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.Builder.String()
}

// Whatever becomes of a database, its password is in no line of the log and in
// no error. Not parallel: the log is the process's.
func TestPasswordIsNeitherLoggedNorReported(t *testing.T) {
	var log syncBuilder
	before := slog.Default()
	slog.SetDefault(slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug})))
	t.Cleanup(func() { slog.SetDefault(before) })

	works, err := url.Parse(kittest.Postgres(t))
	if err != nil {
		t.Fatal(err)
	}
	right, _ := works.User.Password()
	const wrong = "hunter2-secret"
	refused := *works
	refused.User = url.UserPassword(works.User.Username(), wrong)
	for name, text := range map[string]string{
		"works":          works.String(),
		"wrong password": refused.String(),
		"nobody listens": "postgres://u:" + wrong + "@" + kittest.Nowhere + "/x",
		"not a URL":      "postgres://u:" + wrong + "@host:notaport/x",
		"no such option": "postgres://u:" + wrong + "@" + kittest.Nowhere + "/x?sslmode=what",
	} {
		file := filepath.Join(t.TempDir(), "url")
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		for _, cfg := range []postgres.Config{{URL: text, MaxConns: 2}, {URLFile: file, MaxConns: 2}} {
			limit := time.Second
			if name == "works" {
				limit = 5 * time.Second
			}
			errs := []error{cfg.Validate(), use(t, cfg, limit)}
			if name != "works" && errs[1] == nil {
				t.Errorf("%s: no error", name)
			}
			if err := errors.Join(errs...); err != nil && strings.Contains(err.Error(), wrong) {
				t.Errorf("%s: the error tells the password: %v", name, err)
			}
		}
	}
	if !strings.Contains(log.String(), "migrated") || !strings.Contains(log.String(), "periodic work fails") {
		t.Fatalf("nothing was logged:\n%s", log.String())
	}
	if lines := log.String(); strings.Contains(lines, wrong) || strings.Contains(lines, right) {
		t.Errorf("the log tells a password:\n%s", lines)
	}
}

// use does with a database what a service does, for as long as limit.
func use(t *testing.T, cfg postgres.Config, limit time.Duration) error {
	t.Helper()
	pool, err := postgres.Open(t.Context(), cfg)
	if err != nil {
		return err
	}
	defer postgres.Close(pool)
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	health := postgres.NewHealth(pool)
	var running sync.WaitGroup
	running.Go(func() { _ = health.Run(ctx) }) // always nil
	migrated := postgres.Migrate(ctx, pool,
		fstest.MapFS{"001_a.sql": {Data: []byte("-- +goose Up\ncreate table if not exists a ();")}})
	synced := postgres.NewClock(pool).Sync(ctx)
	running.Wait()
	return errors.Join(migrated, synced, health.Ready(t.Context()))
}
