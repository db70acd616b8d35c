package systemtest

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"orderflow.internal/hack/internal/past"
	"orderflow.internal/hack/stack"
	"orderflow.internal/kit/postgres"
)

// envPast says how many orders of the past the large system has; its databases are then kept for the next run.
const envPast = "ORDERFLOW_TEST_PAST"

const (
	smallPast = 40_000
	perPerson = 20  // orders of a customer, so that pages are equally long in both systems
	working   = 200 // orders and customers that people ask for, in both systems: what is asked for is in memory
)

// TestEnduringSize compares a system that has taken orders for a year with one that has just begun. Whatever the
// services do, their statements touch about as many pages of the tables in the one as in the other, and none reads a
// large table as a whole. hack/test endurance makes it 20,000,000 orders and compares times as well.
func TestEnduringSize(t *testing.T) {
	orders := 100_000
	if endures() {
		orders = 20_000_000
	}
	kept := os.Getenv(envPast)
	if kept != "" {
		var err error
		if orders, err = strconv.Atoi(kept); err != nil {
			t.Fatal(err)
		}
	}
	small := &sized{t: t, Stack: fresh(t), orders: smallPast}
	large := &sized{t: t, Stack: vast(t, kept != ""), orders: orders}
	both := []*sized{small, large}
	for _, s := range both {
		s.fill()
		s.explain()
		startOn(t, s.Stack, variant{only: map[string]map[string]string{
			"orders": {"ORDER_DEADLINE": "4s", "OUTBOX_RETENTION": "96h"}, "products": {"OUTBOX_RETENTION": "96h"},
		}})
		s.prepare()
	}
	t.Run("statements", func(t *testing.T) {
		for _, s := range both {
			for _, d := range s.deeds() {
				for range 20 {
					if err := d.do(); err != nil {
						t.Fatalf("%s with %d orders: %v", d.name, s.orders, err)
					}
				}
			}
			s.timeOut(t)
		}
		compareStatements(t, small, large)
	})
	for _, s := range both {
		s.silence()
	}
	t.Run("times", func(t *testing.T) {
		if !endures() && kept == "" {
			t.Skip("a hundred thousand orders are not yet many: hack/test endurance")
		}
		compareTimes(t, small, large)
	})
	t.Run("an index is built under load", func(t *testing.T) { indexUnderLoad(t, large.Stack) })
}

// vast starts the servers of a second stack, until the end of the test.
func vast(t *testing.T, keep bool) *stack.Stack {
	o, err := stack.TestOptions("size", stack.OffsetSystem+20*stack.SystemDistance)
	if err != nil {
		t.Fatal(err)
	}
	o.Race = false
	s, err := stack.New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		err := s.Stop(ctx)
		if err == nil && !keep { // these are gigabytes
			err = s.Purge(ctx)
		}
		if err := errors.Join(err, s.Close()); err != nil {
			t.Error(err)
		}
	})
	if err := s.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	if !keep {
		if err := s.Purge(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.StartServers(t.Context(), true); err != nil {
		t.Fatal(err)
	}
	return s
}

// sized is a system with a past.
type sized struct {
	*stack.Stack
	t      *testing.T
	orders int

	door      *door
	known     []uuid.UUID // some orders that are Confirmed
	customers []uuid.UUID // of theirs
	product   uuid.UUID
	next      int
	placed    []uuid.UUID // not cancelled yet
	logged    int64       // bytes of the server's log from before
}

func (s *sized) pool(name string) *pgxpool.Pool {
	pool, err := pgxpool.New(s.t.Context(), administer(s.Stack, name))
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(pool.Close)
	return pool
}

// fill gives the system its past, unless it has one.
func (s *sized) fill() {
	for _, name := range withDatabase {
		if err := s.Service(name).Migrate(s.t.Context()); err != nil {
			s.t.Fatal(err)
		}
	}
	var filled bool
	orders := s.pool("orders")
	if err := orders.QueryRow(s.t.Context(), "select exists (select from orders)").Scan(&filled); err != nil {
		s.t.Fatal(err)
	}
	if !filled {
		o := past.Defaults()
		o.Orders, o.Customers = s.orders, s.orders/perPerson
		began := time.Now()
		if err := past.Fill(s.t.Context(), past.Of(s.Stack), o); err != nil {
			s.t.Fatal(err)
		}
		s.t.Logf("%d orders stored in %s", s.orders, time.Since(began).Round(time.Second))
	}
	// As much to forget in both: keys that have expired since the fill began would be more in the one.
	if _, err := orders.Exec(s.t.Context(),
		"delete from order_keys where created_at < now() - interval '24 hours'"); err != nil {
		s.t.Fatal(err)
	}
	if _, err := orders.Exec(s.t.Context(), `
insert into order_keys (customer_id, key, request_hash, order_id, created_at)
select customer_id, gen_random_uuid(), '', order_id, now() - interval '25 hours'
from (select from generate_series(1, 500)) as as_often
cross join (select customer_id, order_id from orders limit 1) as any_order`); err != nil {
		s.t.Fatal(err)
	}
}

// prepare chooses what the deeds are about.
func (s *sized) prepare() {
	s.door = newDoor(s.BaseURL(), 4)
	s.t.Cleanup(s.door.close)
	rows, err := s.pool("orders").Query(s.t.Context(), `
select order_id, customer_id
from orders
tablesample system_rows(4000)
where status = 'Confirmed'
order by random()
limit $1`, working)
	if err != nil {
		s.t.Fatal(err)
	}
	var order, customer uuid.UUID
	if _, err := pgx.ForEachRow(rows, []any{&order, &customer}, func() error {
		s.known, s.customers = append(s.known, order), append(s.customers, customer)
		return nil
	}); err != nil {
		s.t.Fatal(err)
	}
	if err := s.pool("products").QueryRow(s.t.Context(), "select product_id from products limit 1").
		Scan(&s.product); err != nil {
		s.t.Fatal(err)
	}
}

// get reads a resource.
func (s *sized) get(path string, query url.Values) error {
	req, err := http.NewRequestWithContext(s.t.Context(), http.MethodGet, s.BaseURL()+path+"?"+query.Encode(), nil)
	if err != nil {
		return err
	}
	res, err := s.door.client.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close() // read to its end
	text, err := io.ReadAll(res.Body)
	if err == nil && res.StatusCode != http.StatusOK {
		err = fmt.Errorf("GET %s: %s: %s", path, res.Status, text)
	}
	return err
}

// some is the next of the orders, over and over.
func (s *sized) some() int {
	s.next++
	return s.next % len(s.known)
}

func (s *sized) place(header http.Header) error {
	var o orderState
	body := map[string]any{"customerId": s.customers[s.some()], "productId": s.product, "quantity": 1}
	err := s.door.call(s.t.Context(), "/orders", header, body, &o, http.StatusCreated, http.StatusAccepted)
	if err == nil {
		s.placed = append(s.placed, o.OrderID)
	}
	return err
}

func (s *sized) cancel() error {
	var o orderState
	id := s.placed[len(s.placed)-1]
	s.placed = s.placed[:len(s.placed)-1]
	return s.door.call(s.t.Context(), "/orders/"+id.String()+"/cancel", nil, struct{}{}, &o, http.StatusOK)
}

// deed is something that people do.
type deed struct {
	name string
	do   func() error
}

// deeds are those of people, in turn.
func (s *sized) deeds() []deed {
	page := url.Values{"limit": {"20"}}
	with := func(key, value string) url.Values { return url.Values{"limit": {"20"}, key: {value}} }
	since := time.Now().Add(-24 * time.Hour)
	day := url.Values{"since": {since.Format(time.RFC3339)}, "until": {since.Add(24 * time.Hour).Format(time.RFC3339)},
		"limit": {"100"}}
	order := func() string { return "/orders/" + s.known[s.some()].String() }
	customer := func() string { return s.customers[s.some()].String() }
	return []deed{
		{"place", func() error { return s.place(http.Header{"Idempotency-Key": {uuid.NewString()}}) }},
		{"read", func() error { return s.get(order(), nil) }},
		{"list", func() error { return s.get("/orders", page) }},
		{"list of customer", func() error { return s.get("/orders", with("customerId", customer())) }},
		{"list by status", func() error { return s.get("/orders", with("status", "Cancelled")) }},
		{"history", func() error { return s.get("/customers/"+customer()+"/orders", page) }},
		{"journey", func() error { return s.get(order()+"/journey", nil) }},
		{"cancel", s.cancel},
		{"audit", func() error { return s.get("/orders/audit/events", day) }},
	}
}

// timeOut places orders that nobody answers, until they are cancelled.
func (s *sized) timeOut(t *testing.T) {
	if err := s.Service("products").Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	for range 10 {
		if err := s.place(http.Header{"Prefer": {"respond-async"}}); err != nil {
			t.Fatal(err)
		}
	}
	pool := s.pool("orders")
	eventually(t, 20*time.Second, "orders time out", func(ctx context.Context) error {
		var left int
		err := pool.QueryRow(ctx, "select count(*) from pending_orders").Scan(&left)
		if err == nil && left > 0 {
			err = fmt.Errorf("%d are pending", left)
		}
		return err
	})
	if err := s.Service("products").Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	eventually(t, 20*time.Second, "orders are placed again", func(context.Context) error {
		return s.place(http.Header{"Idempotency-Key": {uuid.NewString()}})
	})
}

// explain makes the server log the plan of each statement of new sessions, and the pages that it touched.
func (s *sized) explain() {
	s.logged = logSize(s.t, s.Postgres)
	s.administer(
		"create extension if not exists tsm_system_rows",
		"load 'auto_explain'",
		"alter system set session_preload_libraries = 'auto_explain'",
		"alter system set auto_explain.log_min_duration = 0",
		"alter system set auto_explain.log_analyze = on",
		"alter system set auto_explain.log_timing = off",
		"alter system set auto_explain.log_buffers = on",
		"alter system set auto_explain.log_format = json",
		"select pg_reload_conf()")
	s.t.Cleanup(func() { s.administer("load 'auto_explain'", "alter system reset all", "select pg_reload_conf()") })
}

// silence ends that, and all sessions of the services, which open new ones.
func (s *sized) silence() {
	s.administer("load 'auto_explain'", "alter system reset all", "select pg_reload_conf()",
		"select pg_terminate_backend(pid) from pg_stat_activity where usename = any('{orders,products,customers}')")
	eventually(s.t, 20*time.Second, "the services are back", func(context.Context) error { return s.place(nil) })
}

func (s *sized) administer(statements ...string) {
	s.t.Helper()
	ctx := context.WithoutCancel(s.t.Context())
	conn, err := pgx.Connect(ctx, administer(s.Stack, "orders"))
	if err != nil {
		s.t.Fatal(err)
	}
	defer conn.Close(ctx)
	for _, statement := range statements {
		if _, err := conn.Exec(ctx, statement); err != nil {
			s.t.Fatalf("%s: %v", statement, err)
		}
	}
}

// executed is a statement as auto_explain logs it
// (https://www.postgresql.org/docs/current/auto-explain.html).
type executed struct {
	Query string `json:"Query Text"`
	Plan  node
}

type node struct {
	Type     string  `json:"Node Type"`
	Relation string  `json:"Relation Name"`
	Rows     float64 `json:"Actual Rows"`
	Hit      int     `json:"Shared Hit Blocks"`
	Read     int     `json:"Shared Read Blocks"`
	Plans    []node
}

// whole are the relations of which the statement read more than a thousand rows without an index.
func (n node) whole() (relations []string) {
	if n.Type == "Seq Scan" && n.Rows > 1000 {
		relations = append(relations, n.Relation)
	}
	for _, part := range n.Plans {
		relations = append(relations, part.whole()...)
	}
	return relations
}

var planLine = regexp.MustCompile(`^\S+ \S+ \S+ \[\d+\] (\w+)@(\w+) LOG:  duration: [\d.]+ ms  plan:$`)

// plans are the statements that the services have run so far, by database and text.
func (s *sized) plans() map[string][]executed {
	text, err := newLog(s.Postgres, s.logged)
	if err != nil {
		s.t.Fatal(err)
	}
	all := map[string][]executed{}
	lines := bufio.NewScanner(strings.NewReader(text))
	lines.Buffer(nil, 1<<24)
	var database string
	var document bytes.Buffer
	flush := func() {
		var e executed
		if document.Len() > 0 && json.Unmarshal(document.Bytes(), &e) == nil {
			key := database + ": " + strings.Join(strings.Fields(e.Query), " ")
			all[key] = append(all[key], e)
		}
		document.Reset()
	}
	for lines.Scan() {
		if continued, ok := bytes.CutPrefix(lines.Bytes(), []byte("\t")); ok && database != "" {
			document.Write(continued)
			continue
		}
		flush()
		database = ""
		if found := planLine.FindSubmatch(lines.Bytes()); found != nil && string(found[1]) != "postgres" {
			database = string(found[2])
		}
	}
	flush()
	return all
}

// pages is the median of the pages that executions of a statement touched.
func pages(executions []executed) int {
	var all []int
	for _, e := range executions {
		all = append(all, e.Plan.Hit+e.Plan.Read)
	}
	return median(all)
}

// ownTables matches statements that read PostgreSQL's own tables: how much depends on what a session has cached of
// them, not on the orders.
var ownTables = regexp.MustCompile(`(?i)\bfrom pg_`)

// compareStatements holds the statements of the large system to those of the small one. A deeper index costs a page
// more for each row that is looked for.
func compareStatements(t *testing.T, small, large *sized) {
	few, many := small.plans(), large.plans()
	if len(many) < 25 {
		t.Fatalf("only %d statements were logged", len(many))
	}
	compared := 0
	for _, query := range slices.Sorted(maps.Keys(many)) {
		for _, e := range many[query] {
			if relations := e.Plan.whole(); len(relations) > 0 {
				t.Errorf("reads all of %v: %s", relations, query)
				break
			}
		}
		if few[query] == nil || ownTables.MatchString(query) {
			continue
		}
		compared++
		was, is := pages(few[query]), pages(many[query])
		t.Logf("%5d %5d pages: %.150s", was, is, query)
		if is > 2*was+100 {
			t.Errorf("touches %d pages with %d orders, %d with %d: %s", is, large.orders, was, small.orders, query)
		}
	}
	if compared < 25 {
		t.Errorf("only %d statements could be compared", compared)
	}
	t.Logf("%d statements compared", compared)
}

// compareTimes does the same in both systems in turns.
func compareTimes(t *testing.T, small, large *sized) {
	const rounds, each = 40, 10
	systems := []*sized{small, large}
	took := make([][2][]time.Duration, len(small.deeds()))
	for round := -working / each; round < rounds; round++ { // those below 0 bring the pages into memory
		for i := range took {
			for turn := range systems {
				which := (turn + round) & 1
				do := systems[which].deeds()[i]
				for range each {
					began := time.Now()
					if err := do.do(); err != nil {
						t.Fatalf("%s: %v", do.name, err)
					}
					if round >= 0 {
						took[i][which] = append(took[i][which], time.Since(began))
					}
				}
			}
		}
	}
	for i, d := range small.deeds() {
		was, is := median(took[i][0]), median(took[i][1])
		factor := float64(is) / float64(was)
		t.Logf("%-16s p50 %6.2f ms with %d orders, %6.2f ms with %d: %.2f", d.name,
			was.Seconds()*1000, small.orders, is.Seconds()*1000, large.orders, factor)
		if factor > 1.2 {
			t.Errorf("%s takes %.2f times as long with %d orders", d.name, factor, large.orders)
		}
	}
}

func median[T cmp.Ordered](all []T) T {
	slices.Sort(all)
	return all[len(all)/2]
}

// indexUnderLoad adds an index to the largest table while orders are placed, as a release would.
func indexUnderLoad(t *testing.T, s *stack.Stack) {
	pool, err := postgres.Open(t.Context(), postgres.Config{URL: s.Postgres.ServiceURL("orders"), MaxConns: 4})
	if err != nil {
		t.Fatal(err)
	}
	defer postgres.Close(pool)
	// The deadline is a release's again: with one of 4 s, a second's wait is an overload, and new orders are refused.
	orders := s.Service("orders")
	if err := orders.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	orders.Setenv("ORDER_DEADLINE", "15m")
	if err := orders.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	o := steady(s, 50, 15*time.Second)
	o.Retry = false
	r := during(t.Context(), t, o, func(time.Time) {
		began := time.Now()
		err := postgres.Migrate(t.Context(), pool, fstest.MapFS{"900_index.sql": {Data: []byte(`-- +goose NO TRANSACTION
-- +goose Up
create index concurrently if not exists orders_for_a_test on orders (updated_at);
`)}})
		if err != nil {
			t.Error(err)
		}
		t.Logf("the index was built in %s", time.Since(began).Round(time.Millisecond))
	})
	if len(r.Errors) > 0 {
		t.Errorf("requests failed: %s", kinds(r.Errors))
	}
	if err := r.Err(); err != nil {
		t.Error(err)
	}
	var valid bool
	if err := pool.QueryRow(t.Context(), "select indisvalid from pg_index "+
		"where indexrelid = 'orders_for_a_test'::regclass").Scan(&valid); err != nil || !valid {
		t.Errorf("the index is not usable: %v", err)
	}
}
