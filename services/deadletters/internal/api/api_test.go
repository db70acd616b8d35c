package api_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"

	"orderflow.internal/deadletters/internal/api"
	"orderflow.internal/deadletters/internal/letter"
	"orderflow.internal/deadletters/internal/store"
	"orderflow.internal/kit/bus"
	"orderflow.internal/kit/identity"
	"orderflow.internal/kit/kittest"
	"orderflow.internal/kit/postgres"
	"orderflow.internal/kit/webtest"
)

const queue = "customers.order.created"

// client talks to a server with a database of its own. Each answer is held
// against the document.
type client struct {
	*http.Client
	t      *testing.T
	url    string
	token  string // none: ""
	store  *store.Store
	orders *api.Orders
	pool   *pgxpool.Pool

	asking func() // before orders answers
}

func setup(t *testing.T) *client {
	t.Helper()
	pool, err := postgres.Open(t.Context(), postgres.Config{URL: kittest.Postgres(t), MaxConns: 4})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	if err := postgres.Migrate(t.Context(), pool, store.Migrations()); err != nil {
		t.Fatal(err)
	}
	s := store.New(pool, store.Config{Retention: time.Hour, Silence: time.Hour, Rate: 1000})
	c := &client{t: t, store: s, pool: pool, asking: func() {}}
	// Orders knows every order, and has ended it.
	orders := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var q struct{ Subjects []string }
		if err := json.NewDecoder(r.Body).Decode(&q); err != nil || r.URL.Path != "/api/orders/audit/entries" {
			t.Errorf("orders is asked %s: %v", r.URL, err)
		}
		c.asking()
		entries := make([]string, len(q.Subjects))
		for i, id := range q.Subjects {
			entries[i] = fmt.Sprintf(`{"orderId":%q,"status":"Confirmed"}`, id)
		}
		_, _ = fmt.Fprintf(w, `{"entries":[%s]}`, strings.Join(entries, ","))
	}))
	t.Cleanup(orders.Close)
	base, err := url.Parse(orders.URL)
	if err != nil {
		t.Fatal(err)
	}
	c.orders = api.NewOrders(*base)
	server := httptest.NewServer(api.New(s, c.orders, identity.New(identity.Config{})))
	t.Cleanup(server.Close)
	document := webtest.New(t, "../../openapi.yaml")
	transport := document.Transport(t, server.Client().Transport)
	c.Client, c.url = &http.Client{Transport: transport}, server.URL
	return c
}

// ingest stores letters with these bodies, one second after the other.
func (c *client) ingest(bodies ...string) []letter.Letter {
	c.t.Helper()
	var batch []letter.Letter
	for i, body := range bodies {
		order := uuid.New()
		batch = append(batch, letter.Read(queue, bus.Message{
			Headers: []bus.Field{
				{Name: bus.HeaderDeadLetterError, Type: "string", Value: fmt.Sprintf("order %s has %d faults", order, i)},
				{Name: bus.HeaderDeadLetterReason, Type: "string", Value: bus.ReasonPermanent},
				{Name: bus.HeaderDeadLetterTime, Type: "string",
					Value: time.Now().Add(time.Duration(i-1000) * time.Second).UTC().Format(time.RFC3339Nano)},
				{Name: "nested", Type: "table", Items: []bus.Field{{Name: "inner", Type: "int64", Value: "7"}}},
			},
			Properties: []bus.Field{{Name: "correlation-id", Type: "string", Value: order.String()},
				{Name: "message-id", Type: "string", Value: uuid.NewString()}},
			Body: []byte(body),
		}, time.Now()))
	}
	if err := c.store.Ingest(c.t.Context(), batch); err != nil {
		c.t.Fatal(err)
	}
	list, err := c.store.Letters(c.t.Context(), letter.Filter{}, store.Place{}, 1000)
	if err != nil {
		c.t.Fatal(err)
	}
	return list
}

// call sends a request and decodes the answer, whose status has to be want.
func (c *client) call(want int, method, path, body string) map[string]any {
	c.t.Helper()
	text := c.raw(want, method, path, body)
	var answer map[string]any
	if err := json.Unmarshal(text, &answer); err != nil {
		c.t.Fatalf("%s %s: %v in %s", method, path, err, text)
	}
	return answer
}

func (c *client) raw(want int, method, path, body string) []byte {
	c.t.Helper()
	var sent io.Reader
	if body != "" {
		sent = strings.NewReader(body)
	}
	req, err := http.NewRequestWithContext(c.t.Context(), method, c.url+"/api/deadletters"+path, sent)
	if err != nil {
		c.t.Fatal(err)
	}
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	if c.token != "" {
		req.Header.Set("Authorization", "Bearer "+c.token)
	}
	resp, err := c.Do(req)
	if err != nil {
		c.t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		c.t.Fatal(err)
	}
	if resp.StatusCode != want {
		c.t.Fatalf("%s %s: %d %s, want %d", method, path, resp.StatusCode, text, want)
	}
	return text
}

func TestLettersAreListedFilteredAndRead(t *testing.T) {
	t.Parallel()
	c := setup(t)
	letters := c.ingest(`{"a":1}`, "plain text", "\xff\xfe", `{"b":"needle"}`, strings.Repeat("é", 40_000))
	var seen []any
	for path := "?limit=2"; path != ""; {
		page := c.call(200, "GET", path, "")
		seen = append(seen, page["letters"].([]any)...)
		path = ""
		if next, more := page["next"].(string); more {
			path = "?limit=2&after=" + next
		}
	}
	if len(seen) != len(letters) || seen[0].(map[string]any)["letterId"] != float64(letters[0].ID) {
		t.Errorf("pages have %d letters", len(seen))
	}
	for path, want := range map[string]int{
		"?text=needle": 1, "?text=faults": 5, "?queue=" + queue: 5, "?queue=other": 0, "?state=handled": 0, "?text=100%25": 0,
		"?orderId=" + letters[2].OrderID.String(): 1, "?since=2100-01-01T00:00:00Z": 0,
		fmt.Sprintf("?groupId=%d", letters[0].GroupID): 5,
	} {
		if got := len(c.call(200, "GET", path, "")["letters"].([]any)); got != want {
			t.Errorf("%s: %d letters, want %d", path, got, want)
		}
	}
	for i, kind := range []string{"text", "json", "base64", "text", "json"} { // the latest first
		l := c.call(200, "GET", fmt.Sprintf("/%d", letters[i].ID), "")
		if body := l["body"].(map[string]any); body[kind] == nil || body["truncated"] != (i == 0) {
			t.Errorf("letter %d shows %.100v", i, body)
		}
		if got := c.raw(200, "GET", fmt.Sprintf("/bodies/%d", letters[i].ID), ""); int64(len(got)) != letters[i].BodyBytes {
			t.Errorf("letter %d: %d bytes", i, len(got))
		}
	}
	if lines := bytes.Count(c.raw(200, "GET", "/export?queue="+queue, ""), []byte("\n")); lines != len(letters) {
		t.Errorf("%d lines are exported", lines)
	}
	for _, path := range []string{"?state=odd", "?after=x", "?limit=0", "?since=yesterday", "?groupId=0", "?what=1", "/0",
		"/x", "/redrives/x", "/redrives?after=x", "/groups?after=x", "/history?letterId=x", "/history?after=x"} {
		c.call(400, "GET", path, "")
	}
	c.call(404, "GET", "/999999", "")
	c.call(404, "GET", "/bodies/999999", "")
}

func TestGroupsHaveNotes(t *testing.T) {
	t.Parallel()
	c := setup(t)
	letters := c.ingest("1", "2", "3")
	groups := c.call(200, "GET", "/groups", "")["groups"].([]any)
	g := groups[0].(map[string]any)
	if len(groups) != 1 || g["error"] != "order <id> has <n> faults" || g["waiting"] != 3.0 || g["note"] != nil ||
		g["exampleLetterId"] == 0.0 {
		t.Errorf("groups %v", groups)
	}
	path := fmt.Sprintf("/groups/%d/note", letters[0].GroupID)
	c.call(200, "PUT", path, `{"text":"known, see the release"}`)
	if note := c.call(200, "GET", "/groups",
		"")["groups"].([]any)[0].(map[string]any)["note"].(map[string]any); note["by"] != "anyone" {
		t.Errorf("note %v", note)
	}
	c.call(422, "PUT", path, `{}`)
	c.call(404, "PUT", "/groups/999/note", `{"text":"x"}`)
}

// A plan of a hundred thousand letters takes longer than the four seconds that
// other statements have.
func TestAPlanMayTakeLongerThanOtherStatements(t *testing.T) {
	t.Parallel()
	c := setup(t)
	c.ingest("1")
	ctx, cancel := context.WithTimeout(postgres.Patient(t.Context()), time.Minute)
	defer cancel()
	unlocked := make(chan error, 1)
	go func() {
		_, err := c.pool.Exec(ctx, "lock table letters in access exclusive mode; select pg_sleep(6)")
		unlocked <- err
	}()
	kittest.Eventually(t, "the letters are locked", func() (locked bool) {
		err := c.pool.QueryRow(ctx, `
select exists (
  select
  from pg_locks
  where relation = 'letters'::regclass
    and mode = 'AccessExclusiveLock'
    and granted
)`).Scan(&locked)
		return err == nil && locked
	})
	c.call(201, "POST", "/redrives", `{"selection":{"queue":"`+queue+`"},"why":"repaired"}`)
	if err := <-unlocked; err != nil {
		t.Error(err)
	}
}

// Who is told that making a plan has failed makes it again: once it is stored, it is answered.
func TestAPlanIsAnsweredWhateverFailsOnceItIsStored(t *testing.T) {
	t.Parallel()
	c := setup(t)
	c.ingest("1", "2")
	c.asking = func() {
		if _, err := c.pool.Exec(t.Context(), "alter table redrives rename to lost"); err != nil {
			t.Error(err)
		}
	}
	plan := c.call(201, "POST", "/redrives", `{"selection":{"queue":"`+queue+`"},"why":"repaired"}`)
	orders := plan["orders"].(map[string]any)
	if plan["total"] != 2.0 || plan["planned"] != 2.0 || orders["final"] != 2.0 {
		t.Errorf("plan %v", plan)
	}
	if _, err := c.pool.Exec(t.Context(), "alter table lost rename to redrives"); err != nil {
		t.Fatal(err)
	}
	if again := c.call(200, "GET", "/redrives/"+plan["redriveId"].(string), ""); again["total"] != 2.0 {
		t.Errorf("stored: %v", again)
	}
}

func TestAPlanIsFrozenAndWalksThroughItsStates(t *testing.T) {
	t.Parallel()
	c := setup(t)
	letters := c.ingest("1", "2", "3")
	plan := c.call(201, "POST", "/redrives", `{"selection":{"queue":"`+queue+`"},"why":"repaired"}`)
	c.ingest("4") // too late
	orders := plan["orders"].(map[string]any)
	if plan["state"] != "draft" || plan["total"] != 3.0 || orders["total"] != 3.0 || orders["asked"] != 3.0 ||
		orders["final"] != 3.0 {
		t.Errorf("plan %v", plan)
	}
	path := "/redrives/" + plan["redriveId"].(string)
	c.call(409, "POST", path+"/pause", `{}`)
	c.call(200, "POST", path+"/start", `{"why":"now"}`)
	c.call(409, "POST", path+"/start", `{}`)
	taken := c.call(201, "POST", "/redrives",
		fmt.Sprintf(`{"selection":{"letterIds":[%d]},"why":"me too","rate":5}`, letters[0].ID))
	conflict := c.call(409, "POST", "/redrives/"+taken["redriveId"].(string)+"/start", `{}`)
	if text := fmt.Sprint(conflict["errors"]); !strings.Contains(text, fmt.Sprintf("letters[%d]", letters[0].ID)) ||
		!strings.Contains(text, plan["redriveId"].(string)) {
		t.Errorf("the second operator is told %v", conflict)
	}
	if r := c.call(200, "POST", "/redrives/"+taken["redriveId"].(string)+"/start",
		`{"skipTaken":true}`); r["skipped"] != 1.0 {
		t.Errorf("without what is taken: %v", r)
	}
	if n := c.call(200, "POST", "/discard",
		`{"selection":{"queue":"`+queue+`"},"why":"nobody needs it"}`)["discarded"]; n != 1.0 {
		t.Errorf("%v letters are discarded, want the one that nobody redrives", n)
	}
	c.call(200, "POST", path+"/pause", `{}`)
	c.call(200, "POST", path+"/resume", `{}`)
	c.call(200, "POST", path+"/cancel", `{"why":"enough"}`)
	if r := c.call(200, "GET", path, ""); r["state"] != "cancelled" || r["skipped"] != 3.0 {
		t.Errorf("cancelled: %v", r)
	}
	if got := len(c.call(200, "GET", path+"/letters?outcome=skipped", "")["letters"].([]any)); got != 3 {
		t.Errorf("%d letters are skipped", got)
	}
	var actions []string
	for _, e := range c.call(200, "GET", "/history?redriveId="+plan["redriveId"].(string), "")["entries"].([]any) {
		actions = append(actions, e.(map[string]any)["action"].(string))
	}
	if got := strings.Join(actions, " "); got != "cancelled resumed paused started planned" {
		t.Errorf("history: %s", got)
	}
	if got := len(c.call(200, "GET", "/redrives?limit=1", "")["redrives"].([]any)); got != 1 {
		t.Errorf("a page has %d redrives", got)
	}
	c.call(404, "GET", "/redrives/"+uuid.NewString(), "")
	c.call(404, "POST", "/redrives/"+uuid.NewString()+"/start", `{}`)
	c.call(404, "GET", "/redrives/"+uuid.NewString()+"/letters", "")
	for _, body := range []string{`{"selection":{},"why":"x"}`, `{"why":"x"}`, `{"selection":{"queue":"q"}}`,
		`{"selection":{"letterIds":[]},"why":"x"}`, `{"selection":{"letterIds":[0]},"why":"x"}`,
		`{"selection":{"queue":""},"why":"x"}`, `{"selection":{"queue":"q"},"why":"x","rate":0}`} {
		c.call(422, "POST", "/redrives", body)
	}
	c.call(400, "POST", "/redrives", `{"selection":{"queues":"q"},"why":"x"}`)
}

// The history names people as their issuer does, and the service's own name is nobody else's.
func TestTheHistorySaysWhoItWas(t *testing.T) {
	c := setup(t)
	issuer := kittest.NewIssuer(t)
	auth := identity.New(identity.Config{
		Issuer: issuer.URL, Audience: kittest.Audience, CustomerClaim: "customer_id",
		ScopeStock: "stock", ScopeOperations: "operations", TokenTypes: []string{"at+jwt"},
	})
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- auth.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	kittest.Eventually(t, "the issuer's keys are there", func() bool { return auth.Ready(t.Context()) == nil })
	server := httptest.NewServer(api.New(c.store, c.orders, auth))
	t.Cleanup(server.Close)
	c.url = server.URL
	for subject, known := range map[string]bool{"ops": true, letter.Itself: false, "anyone": false} {
		c.token = issuer.Sign(t, "at+jwt", issuer.Claims(subject, map[string]any{"scope": "operations"}))
		letters := c.ingest(subject)
		c.call(200, "POST", "/discard", fmt.Sprintf(`{"selection":{"letterIds":[%d]},"why":"useless"}`, letters[0].ID))
		entry := c.call(200, "GET", "/history?limit=1", "")["entries"].([]any)[0].(map[string]any)
		if by := entry["by"].(string); entry["action"] != "discarded" || by == "" || (by == subject) != known {
			t.Errorf("%s: %v", subject, entry)
		}
	}
}
