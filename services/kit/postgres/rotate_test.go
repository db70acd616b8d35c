package postgres_test

import (
	"context"
	"crypto/rand"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"orderflow.internal/kit/kittest"
	"orderflow.internal/kit/postgres"
)

// The procedure of docs/secrets.md: a second user, who may do what the first may,
// takes its place for every new connection, and work continues meanwhile.
func TestADatabaseUserIsReplacedUnderLoad(t *testing.T) {
	ctx := t.Context()
	admin := kittest.Postgres(t)
	suffix := strings.ToLower(rand.Text()[:12])
	blue, green := "blue_"+suffix, "green_"+suffix
	do := func(statement string) {
		t.Helper()
		conn, err := pgx.Connect(context.WithoutCancel(ctx), admin)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close(context.WithoutCancel(ctx))
		if _, err := conn.Exec(context.WithoutCancel(ctx), statement); err != nil {
			t.Fatalf("%s: %v", statement, err)
		}
	}
	file := filepath.Join(t.TempDir(), "url")
	use := func(user string) {
		t.Helper()
		u, err := url.Parse(admin)
		if err != nil {
			t.Fatal(err)
		}
		u.User = url.UserPassword(user, "of "+user)
		next := file + ".next" // as Kubernetes does: never half a file
		if err := os.WriteFile(next, []byte(u.String()+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(next, file); err != nil {
			t.Fatal(err)
		}
	}
	name := strings.TrimPrefix(mustParse(t, admin).Path, "/")
	do("create role " + blue + " login password 'of " + blue + "'")
	do("grant create on schema public to " + blue)
	t.Cleanup(func() {
		do("drop owned by " + blue + " cascade; drop role if exists " + green + "; drop role " + blue)
	})
	use(blue)
	pool, err := postgres.Open(ctx, postgres.Config{URLFile: file, MaxConns: 4})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	if _, err := pool.Exec(ctx, "create table t (n int)"); err != nil {
		t.Fatal(err)
	}

	stop := make(chan struct{})
	var users sync.Map
	var working sync.WaitGroup
	for range 4 {
		working.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				var user string
				if err := pool.QueryRow(ctx, "insert into t values (1) returning session_user::text").Scan(&user); err != nil {
					t.Errorf("work fails: %v", err)
					return
				}
				users.Store(user, true)
			}
		})
	}
	do("create role " + green + " login password 'of " + green + "' in role " + blue)
	do("alter role " + green + " in database " + name + " set role = " + blue)
	use(green)
	pool.Reset() // what the connections' age does in an hour
	for deadline := time.Now().Add(20 * time.Second); ; <-time.After(10 * time.Millisecond) {
		if _, ok := users.Load(green); ok {
			break
		}
		if time.Now().After(deadline) {
			t.Error("no connection is the new user's")
			break
		}
	}
	do("alter role " + blue + " nologin password null")
	close(stop)
	working.Wait()
	if _, err := pool.Exec(ctx, "create table owned (n int)"); err != nil {
		t.Error(err)
	}
	if owner := scan[string](t, pool, "select tableowner from pg_tables where tablename = 'owned'"); owner != blue {
		t.Errorf("what the new user makes belongs to %s", owner)
	}
}

func mustParse(t *testing.T, raw string) *url.URL {
	t.Helper()
	u, err := url.Parse(raw)
	if err != nil {
		t.Fatal(err)
	}
	return u
}
