package postgres

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// roleSettings are the defaults of the service's own role in its own database.
// Nothing that a service does takes long, and the limits free the locks that a
// vanished or stuck client would hold. No statement gains by being compiled.
//
// They belong to the role because poolers refuse them as start-up parameters,
// and because a SET would stay behind in a session that a pooler lends to
// somebody else.
var roleSettings = []struct{ name, value string }{
	{"statement_timeout", "15s"},
	{"lock_timeout", "10s"},
	{"idle_in_transaction_session_timeout", "5s"},
	{"jit", "off"},
}

// applyRoleSettings gives the role those of roleSettings that nobody has set
// for it or for its database, so that operators have the last word. New
// sessions have them.
func applyRoleSettings(ctx context.Context, tx pgx.Tx) error {
	names, err := All(ctx, tx, pgx.RowTo[string], `
select split_part(setting, '=', 1)
from pg_db_role_setting s
join pg_roles r on r.rolname = session_user
join pg_database d on d.datname = current_database(),
  unnest(s.setconfig) setting
where s.setrole in (0, r.oid)
and s.setdatabase in (0, d.oid)`)
	if err != nil {
		return err
	}
	given := map[string]bool{}
	for _, name := range names {
		given[name] = true
	}
	var database string
	if err := tx.QueryRow(ctx, "select current_database()").Scan(&database); err != nil {
		return err
	}
	for _, s := range roleSettings {
		if given[s.name] {
			continue
		}
		err := pgx.BeginFunc(ctx, tx, func(tx pgx.Tx) error { // a savepoint
			_, err := tx.Exec(ctx, fmt.Sprintf("alter role session_user in database %s set %s = '%s'",
				pgx.Identifier{database}.Sanitize(), s.name, s.value))
			return err
		})
		var pg *pgconn.PgError
		if errors.As(err, &pg) && pg.Code == "42501" { // insufficient privilege
			slog.WarnContext(ctx, "the role may not change its own settings: set them for it",
				"setting", s.name, "value", s.value, "error", err)
			continue
		}
		if err != nil {
			return err
		}
	}
	return nil
}
