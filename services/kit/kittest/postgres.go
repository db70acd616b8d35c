// Package kittest gives a test its own piece of a real PostgreSQL and a real
// RabbitMQ: a database, a virtual host. `hack/test` starts both and says where
// they are in ORDERFLOW_TEST_* variables; without them a test fails, it does
// not skip.
package kittest

import (
	"context"
	"crypto/rand"
	"net/url"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

func env(t testing.TB, name string) string {
	t.Helper()
	value := os.Getenv(name)
	if value == "" {
		t.Fatalf("%s is not set: run the tests with hack/test, or point it at a server of your own", name)
	}
	return value
}

func unique(t testing.TB) string {
	t.Helper()
	return "test_" + strings.ToLower(rand.Text()[:16])
}

// Postgres makes an empty database on the server of
// ORDERFLOW_TEST_DATABASE_URL, a superuser's URL, and returns its URL. It is
// dropped at the end of the test.
func Postgres(t testing.TB) string {
	t.Helper()
	admin := env(t, "ORDERFLOW_TEST_DATABASE_URL")
	name := unique(t)
	execute(t, admin, "create database "+name)
	t.Cleanup(func() { execute(t, admin, "drop database "+name+" with (force)") })
	u, err := url.Parse(admin)
	if err != nil {
		t.Fatalf("ORDERFLOW_TEST_DATABASE_URL: %v", err)
	}
	u.Path = "/" + name
	return u.String()
}

func execute(t testing.TB, url, statement string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		t.Fatalf("connect to the test database: %v", err)
	}
	defer conn.Close(ctx)
	if _, err := conn.Exec(ctx, statement); err != nil {
		t.Fatalf("%s: %v", statement, err)
	}
}
