package stack

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"

	"orderflow.internal/hack/internal/tool"
)

// Postgres is the stack's own PostgreSQL server, one database and one role per service.
type Postgres struct {
	*process
	port    int
	secrets secrets
	dir     string // of the stack
	detach  bool
	specs   []serviceSpec // of the stack's services
}

const postgresSuperuser = "postgres"

// settings differ from PostgreSQL's defaults only to be small and quiet on a developer's machine. Durability (fsync,
// synchronous_commit, full_page_writes) keeps its defaults: what a service commits survives a crash here as well.
var postgresSettings = map[string]string{
	"listen_addresses":                "127.0.0.1",
	"unix_socket_directories":         "",
	"max_connections":                 "100",
	"shared_buffers":                  "128MB",
	"max_wal_size":                    "1GB",
	"jit":                             "off", // compiling costs more than any query of ours
	"max_worker_processes":            "4",
	"max_parallel_workers_per_gather": "0",
	"max_logical_replication_workers": "0",
	"log_line_prefix":                 "%m [%p] %q%u@%d ",
	"log_checkpoints":                 "off",
	"password_encryption":             "scram-sha-256",
}

// Start runs the server (made on first use) and waits until it answers.
func (p *Postgres) Start(ctx context.Context) error {
	bin, err := postgresBin()
	if err != nil {
		return err
	}
	if err := waitFree(p.port, "PostgreSQL"); err != nil {
		return err
	}
	user, err := serverUser()
	if err != nil {
		return err
	}
	data, err := p.dataDir(bin, user)
	if err != nil {
		return err
	}
	if _, err := os.Stat(filepath.Join(data, "PG_VERSION")); errors.Is(err, os.ErrNotExist) {
		if err := p.initialize(ctx, bin, data, user); err != nil {
			return fmt.Errorf("make a PostgreSQL cluster in %s: %w", data, err)
		}
	}
	args := []string{"-D", data, "-c", "port=" + strconv.Itoa(p.port)}
	for key, value := range postgresSettings {
		args = append(args, "-c", key+"="+value)
	}
	err = p.run(command{
		path: filepath.Join(bin, "postgres"), args: args, dir: data,
		env:  []string{"LC_ALL=C.UTF-8", "TZ=UTC", "PATH=" + os.Getenv("PATH")},
		user: user, detach: p.detach,
		stop: syscall.SIGINT, // "fast": ends sessions, then a clean shutdown
	})
	if err != nil {
		return err
	}
	if err := p.WaitReady(ctx); err != nil {
		return err
	}
	return p.createDatabases(ctx)
}

// WaitReady returns when the server answers queries.
func (p *Postgres) WaitReady(ctx context.Context) error {
	return p.poll(ctx, 50*time.Millisecond, p.Ready)
}

// Ready reports whether the server answers queries now.
func (p *Postgres) Ready(ctx context.Context) error {
	conn, err := pgx.Connect(ctx, p.AdminURL())
	if err != nil {
		return err
	}
	return errors.Join(conn.Ping(ctx), conn.Close(ctx))
}

// Stop shuts the server down cleanly.
func (p *Postgres) Stop(ctx context.Context) error { return p.terminate(ctx) }

// Kill ends all its processes with SIGKILL, as a power cut would.
func (p *Postgres) Kill(context.Context) error { return p.kill() }

// Port takes connections.
func (p *Postgres) Port() int { return p.port }

// Address is host and port.
func (p *Postgres) Address() string { return address(p.port) }

// AdminURL connects as superuser to the database postgres.
func (p *Postgres) AdminURL() string {
	return p.url(postgresSuperuser, p.secrets["postgres"], "postgres")
}

// ServiceURL connects as a service's own role to its own database.
func (p *Postgres) ServiceURL(service string) string {
	return p.url(service, p.secrets["postgres-"+service], service)
}

func (p *Postgres) url(user, password, database string) string {
	u := url.URL{Scheme: "postgres", User: url.UserPassword(user, password), Host: address(p.port), Path: "/" + database}
	u.RawQuery = "sslmode=disable" // loopback only
	return u.String()
}

// initialize makes the server's files beside their place: initdb that is broken off leaves a PG_VERSION as well.
func (p *Postgres) initialize(ctx context.Context, bin, data string, user *syscall.Credential) (err error) {
	passwordFile := data + ".password"
	if err := os.WriteFile(passwordFile, []byte(p.secrets["postgres"]+"\n"), 0o600); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.Remove(passwordFile)) }()
	if user != nil {
		if err := os.Chown(passwordFile, int(user.Uid), int(user.Gid)); err != nil {
			return err
		}
	}
	next := data + ".new"
	if err := os.RemoveAll(next); err != nil { // of a start that was broken off
		return err
	}
	cmd := exec.CommandContext(ctx, filepath.Join(bin, "initdb"), "-D", next, "-U", postgresSuperuser,
		"--pwfile", passwordFile, "--auth=scram-sha-256", "--encoding=UTF8", "--locale=C.UTF-8", "--data-checksums")
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: user}
	cmd.Dir = filepath.Dir(data)
	if _, err := tool.Output(cmd); err != nil {
		return err
	}
	return syscall.Rename(next, data) // os.Rename would not replace a folder, though this one is empty
}

// createDatabases gives each service a role and a database of its own; others cannot connect to it.
func (p *Postgres) createDatabases(ctx context.Context) error {
	conn, err := pgx.Connect(ctx, p.AdminURL())
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	for _, s := range p.specs {
		if !s.database {
			continue
		}
		var exists bool
		if err := conn.QueryRow(ctx, `select exists (select from pg_database where datname = $1)`, s.name).
			Scan(&exists); err != nil {
			return err
		}
		if exists {
			continue
		}
		// A role without a database is left by a start that was broken off in between.
		drop := `drop role if exists ` + pgx.Identifier{s.name}.Sanitize()
		for _, sql := range append([]string{drop}, databaseStatements(s.name, p.secrets["postgres-"+s.name])...) {
			if _, err := conn.Exec(ctx, sql); err != nil {
				return fmt.Errorf("make database %s: %w", s.name, err)
			}
		}
	}
	return nil
}

// databaseStatements give a service a role and a database that no other one can connect to.
func databaseStatements(service, password string) []string {
	name := pgx.Identifier{service}.Sanitize()
	return []string{
		`create role ` + name + ` login password '` + password + `'`,
		`create database ` + name + ` owner ` + name,
		`revoke all on database ` + name + ` from public`,
	}
}
