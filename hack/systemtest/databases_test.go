package systemtest

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"orderflow.internal/hack/stack"
)

// demoted is what a failover looks like to a service: the sessions that it has may only read, new ones may write.
type demoted struct{ *stack.Stack }

func (demoted) String() string { return "old sessions are read-only" }

func (f demoted) begin(ctx context.Context, t testing.TB) error {
	err := f.forAll(ctx, `alter role %[1]s set default_transaction_read_only = on`, `
select pg_terminate_backend(pid)
from pg_stat_activity
where usename = '%[1]s'`)
	if err != nil {
		return err
	}
	// Sessions that began in between, or between two statements of ours, are read-only as well, or end.
	return until(ctx, func(context.Context) error {
		for _, name := range withDatabase {
			if len(query[struct{ PID int }](t, f.Postgres.AdminURL(), `select pid from pg_stat_activity where usename = $1`,
				name)) == 0 {
				return fmt.Errorf("%s has no session", name)
			}
		}
		return nil
	})
}

func (f demoted) end(ctx context.Context, _ testing.TB) error {
	return f.forAll(ctx, `alter role %s reset default_transaction_read_only`)
}

// forAll runs statements as administrator, with the name of each role in them.
func (f demoted) forAll(ctx context.Context, statements ...string) error {
	conn, err := pgx.Connect(ctx, f.Postgres.AdminURL())
	if err != nil {
		return err
	}
	for _, sql := range statements {
		for _, name := range withDatabase {
			_, failed := conn.Exec(ctx, fmt.Sprintf(sql, name))
			err = errors.Join(err, failed)
		}
	}
	return errors.Join(err, conn.Close(ctx))
}

// deadlocks are provoked by a stranger who locks two products in the order in which the service does not, and who never
// gives in.
type deadlocks struct {
	*stack.Stack
	stop context.CancelFunc
	done *sync.WaitGroup
	errs *[]error
}

func (deadlocks) String() string { return "deadlocks on the products" }

func (f *deadlocks) begin(ctx context.Context, _ testing.TB) error {
	ctx, f.stop = context.WithCancel(ctx)
	f.done, f.errs = new(sync.WaitGroup), new([]error)
	conn, err := pgx.Connect(ctx, administer(f.Stack, "products"))
	if err != nil {
		return err
	}
	if _, err := conn.Exec(ctx, `set deadlock_timeout = '1min'`); err != nil {
		return err
	}
	f.done.Go(func() {
		defer conn.Close(context.WithoutCancel(ctx)) // nothing is left to lose
		for ctx.Err() == nil {
			if err := f.lockTwo(ctx, conn); err != nil && ctx.Err() == nil {
				*f.errs = append(*f.errs, err)
				return
			}
		}
	})
	return nil
}

func (f *deadlocks) lockTwo(ctx context.Context, conn *pgx.Conn) error {
	return pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
		rows, err := tx.Query(ctx, `
select product_id::text
from products
order by created_at desc, product_id
limit 4`)
		if err != nil {
			return err
		}
		ids, err := pgx.CollectRows(rows, pgx.RowTo[string])
		if err != nil || len(ids) < 2 {
			return errors.Join(err, fmt.Errorf("%d products", len(ids)))
		}
		first := rand.IntN(len(ids))
		second := (first + 1 + rand.IntN(len(ids)-1)) % len(ids)
		for _, i := range []int{first, second} {
			if _, err := tx.Exec(ctx, `select from products where product_id = $1 for update`, ids[i]); err != nil {
				return err
			}
			if err := pause(ctx, 20*time.Millisecond); err != nil {
				return err
			}
		}
		return nil
	})
}

func (f *deadlocks) end(context.Context, testing.TB) error {
	f.stop()
	f.done.Wait()
	return errors.Join(*f.errs...)
}

// administer is the URL of an administrator in a service's database.
func administer(s *stack.Stack, name string) string {
	u, _ := url.Parse(s.Postgres.AdminURL()) // the stack has made it
	u.Path = "/" + name
	return u.String()
}

// slowProduct is a product whose row somebody has locked for longer than any transaction of the service may take.
type slowProduct struct {
	*stack.Stack
	conn *pgx.Conn
}

func (slowProduct) String() string { return "a product's row is locked" }

func (f *slowProduct) begin(ctx context.Context, _ testing.TB) (err error) {
	if f.conn, err = pgx.Connect(ctx, administer(f.Stack, "products")); err != nil {
		return err
	}
	_, err = f.conn.Exec(ctx, `
begin;
select
from products
where product_id = (select product_id from products order by created_at desc limit 1)
for update`)
	return err
}

func (f *slowProduct) end(ctx context.Context, _ testing.TB) error { return f.conn.Close(ctx) }

// What goes wrong in a database, or between it and its services, costs time and nothing else.
func TestDatabases(t *testing.T) {
	s := start(t, variant{})
	t.Run("failover", func(t *testing.T) {
		seen := undergo(t, s, ordeal{fault: demoted{s}, lasts: 2 * time.Second, load: steady(s, 100, 9*time.Second)})
		// Afterwards, when new sessions may write, no request fails for longer than a pool takes to notice.
		last := 0
		for second, what := range seen.report.Timeline {
			if what.Refused+what.Unknown+what.Failed > 0 {
				last = second
			}
		}
		if limit := int(seen.ended.Sub(seen.started).Seconds()) + 6; last > limit {
			t.Errorf("requests failed in second %d, the failover had ended by second %d", last, limit-6)
		}
		// Orders wait for the end of one that takes no longer than they may wait.
		took := seen.ended.Sub(seen.began)
		if n := sumOf(seen.report.Timeline); took < 4*time.Second && n.Refused+n.Unknown+n.Failed > 0 {
			t.Errorf("%d requests were refused, of %d the outcome is unknown, %d failed: %s",
				n.Refused, n.Unknown, n.Failed, kinds(seen.report.Errors))
		}
		t.Logf("a failover of %.1f s, slowest order %.0f ms", took.Seconds(), seen.report.Latency.Max)
	})
	t.Run("deadlocks", func(t *testing.T) {
		count := func() int {
			return query[struct{ Count int }](t, s.Postgres.AdminURL(),
				`select deadlocks::int from pg_stat_database where datname = 'products'`)[0].Count
		}
		before := count()
		load := steady(s, 100, 9*time.Second)
		load.Products, load.Items = 4, 2
		seen := undergo(t, s, ordeal{fault: &deadlocks{Stack: s}, lasts: 6 * time.Second, load: load})
		// at the end of a session or a second
		eventually(t, 10*time.Second, "deadlocks are counted", func(context.Context) error {
			if n := count() - before; n < 3 {
				return fmt.Errorf("%d deadlocks", n)
			}
			return nil
		})
		t.Logf("%d deadlocks", count()-before)
		for _, line := range seen.logs.since(t, s.Service("products")) {
			if strings.Contains(line.Msg, "paused") {
				t.Errorf("a deadlock is no outage: %s", line.raw)
			}
		}
	})
	t.Run("a hot product", func(t *testing.T) {
		load := steady(s, 60, 15*time.Second)
		load.Products = 20
		seen := undergo(t, s, ordeal{fault: &slowProduct{Stack: s}, lasts: 12 * time.Second, load: load})
		t.Log(finals(seen))
	})
}

// finals are the orders that became final in each second.
func finals(seen testimony) string {
	var text strings.Builder
	for _, second := range seen.report.Timeline {
		fmt.Fprintf(&text, "%d ", second.Final)
	}
	return fmt.Sprintf("final by second: %s(the fault from %.1f s to %.1f s)", text.String(),
		seen.began.Sub(seen.started).Seconds(), seen.ended.Sub(seen.started).Seconds())
}

// pooler is PgBouncer in transaction mode, otherwise with its own defaults, in front of the stack's PostgreSQL.
type pooler struct {
	dir     string
	address string
	cmd     *exec.Cmd
}

const poolerPort = "9532" // below the ports that the kernel hands out

func newPooler(t testing.TB, s *stack.Stack) *pooler {
	t.Helper()
	if _, err := os.Stat(stack.PgBouncer); err != nil {
		t.Fatalf("%v: hack/test installs it (apt-get install pgbouncer)", err)
	}
	dir, err := os.MkdirTemp("", "pgbouncer") // where another user may read it
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	admin := mustParse(t, s.Postgres.AdminURL())
	var users strings.Builder
	for _, name := range withDatabase {
		user := mustParse(t, s.Postgres.ServiceURL(name)).User
		password, _ := user.Password()
		fmt.Fprintf(&users, "%q %q\n", user.Username(), password)
	}
	p := &pooler{dir: dir, address: net.JoinHostPort("127.0.0.1", poolerPort)}
	config := fmt.Sprintf(`[databases]
* = host=%s port=%s
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = %s
unix_socket_dir =
auth_type = scram-sha-256
auth_file = %s/users
pool_mode = transaction
`, admin.Hostname(), admin.Port(), poolerPort, dir)
	if os.Geteuid() == 0 {
		config += "user = nobody\n" // it does not run as root
	}
	for name, text := range map[string]string{"ini": config, "users": users.String()} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := p.run(t); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.kill() })
	return p
}

func (p *pooler) run(t testing.TB) error {
	log, err := os.OpenFile(filepath.Join(p.dir, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close() // the child has its own
	p.cmd = exec.Command(stack.PgBouncer, filepath.Join(p.dir, "ini"))
	p.cmd.Stdout, p.cmd.Stderr = log, log
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := p.cmd.Start(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	return until(ctx, func(ctx context.Context) error {
		conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", p.address)
		if err != nil {
			text, _ := os.ReadFile(log.Name()) // there if it got so far
			return fmt.Errorf("%w: %s", err, text)
		}
		return conn.Close()
	})
}

func (p *pooler) kill() error {
	err := p.cmd.Process.Kill()
	_ = p.cmd.Wait() // it was killed
	return err
}

func (p *pooler) String() string                            { return "the pooler is killed" }
func (p *pooler) begin(context.Context, testing.TB) error   { return p.kill() }
func (p *pooler) end(_ context.Context, t testing.TB) error { return p.run(t) }
func (p *pooler) url(t testing.TB, database string) string {
	t.Helper()
	u := mustParse(t, database)
	u.Host = p.address
	q := u.Query()
	q.Set("default_query_exec_mode", "cache_describe") // no prepared statements, which belong to a session
	u.RawQuery = q.Encode()
	return u.String()
}

// Two instances of each service, started at once on empty databases, migrate and work through a transaction pooler.
func TestPooler(t *testing.T) {
	s := fresh(t)
	p := newPooler(t, s)
	only := make(map[string]map[string]string)
	for _, name := range withDatabase {
		only[name] = map[string]string{"DATABASE_URL": p.url(t, s.Postgres.ServiceURL(name))}
	}
	start(t, variant{instances: 2, only: only})
	seen := undergo(t, s, ordeal{fault: p, lasts: time.Second, load: closedLoop(s)})
	if all := sumOf(seen.report.Timeline); all.Failed > 0 {
		t.Errorf("%d answers are neither an order, nor 503, nor 504: %s", all.Failed, kinds(seen.report.Errors))
	}
}
