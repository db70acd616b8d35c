package postgres_test

import (
	"context"
	"crypto/rand"
	"net/url"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/jackc/pgx/v5/pgxpool"

	"orderflow.internal/kit/kittest"
	"orderflow.internal/kit/postgres"
)

// asService returns a pool of an ordinary role, and one of the superuser, who
// owns the database.
func asService(t *testing.T) (service, super *pgxpool.Pool, role string) {
	t.Helper()
	rawURL := kittest.Postgres(t)
	super, err := postgres.Open(t.Context(), postgres.Config{URL: rawURL, MaxConns: 2})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(super.Close)
	role = "test_" + strings.ToLower(rand.Text()[:16])
	if _, err := super.Exec(t.Context(),
		"create role "+role+" login password 'secret'; grant create on schema public to "+role); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if _, err := super.Exec(context.Background(), "drop owned by "+role+" cascade; drop role "+role); err != nil {
			t.Error(err)
		}
	})
	u, err := url.Parse(rawURL)
	if err != nil {
		t.Fatal(err)
	}
	u.User = url.UserPassword(role, "secret")
	service, err = postgres.Open(t.Context(), postgres.Config{URL: u.String(), MaxConns: 2})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(service.Close)
	return service, super, role
}

func TestMigrateGivesTheServicesRoleItsLimits(t *testing.T) {
	t.Parallel()
	service, super, role := asService(t)
	// What an operator has chosen stays.
	if _, err := super.Exec(t.Context(), "alter role "+role+" set lock_timeout = '7s'"); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := postgres.Migrate(t.Context(), service, fstest.MapFS{}); err != nil {
			t.Fatal(err)
		}
		for name, want := range map[string]string{
			"statement_timeout":                   "15s",
			"lock_timeout":                        "7s",
			"idle_in_transaction_session_timeout": "5s",
			"jit":                                 "off",
		} {
			if got := scan[string](t, service, "show "+name); got != want {
				t.Errorf("%s is %s, want %s", name, got, want)
			}
		}
	}
	if got := scan[string](t, super, "show statement_timeout"); got != "0" {
		t.Errorf("another role's statement_timeout is %s", got)
	}
}
