package audit_test

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"orderflow.internal/kit/audit"
	"orderflow.internal/kit/web"
)

var noon = time.Date(2026, 11, 5, 12, 0, 0, 0, time.UTC)

func TestEventsPageByPage(t *testing.T) {
	t.Parallel()
	var all []audit.Event
	for i := range 5 {
		all = append(all, audit.Event{ID: uuid.New(), Subject: uuid.NewString(), RoutingKey: "thing.made",
			PublishedAt: noon.Add(time.Duration(i) * time.Second)})
	}
	read := func(_ context.Context, r audit.Range) ([]audit.Event, time.Time, error) {
		var page []audit.Event
		for _, e := range all {
			if !e.PublishedAt.Before(r.Since) && e.PublishedAt.Before(r.Until) && e.PublishedAt.After(r.AfterTime) &&
				len(page) < r.Limit {
				page = append(page, e)
			}
		}
		return page, noon.Add(time.Hour), nil
	}
	handler := web.Handle(audit.EventsHandler(read))
	query := url.Values{"since": {noon.Format(time.RFC3339)}, "until": {noon.Add(4 * time.Second).Format(time.RFC3339)},
		"limit": {"2"}}
	var got []audit.Event
	for pages := 1; ; pages++ {
		w := httptest.NewRecorder()
		handler(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/events?"+query.Encode(), nil))
		if w.Code != http.StatusOK {
			t.Fatalf("%d %s", w.Code, w.Body)
		}
		var page audit.Events
		if err := json.Unmarshal(w.Body.Bytes(), &page); err != nil {
			t.Fatal(err)
		}
		if !page.Now.Equal(noon.Add(time.Hour)) {
			t.Errorf("now is %s", page.Now)
		}
		got = append(got, page.Events...)
		if page.Next == "" {
			if pages != 3 {
				t.Errorf("%d pages, want 3: two full ones and an empty one", pages)
			}
			break
		}
		query.Set("after", page.Next)
	}
	if len(got) != 4 || got[0].ID != all[0].ID || got[3].ID != all[3].ID {
		t.Errorf("got %v, want the first four of %v", got, all)
	}
}

func TestEventsRefusesBadRanges(t *testing.T) {
	t.Parallel()
	handler := web.Handle(audit.EventsHandler(func(context.Context, audit.Range) ([]audit.Event, time.Time, error) {
		t.Error("a bad range was read")
		return nil, noon, nil
	}))
	const good = "since=2026-11-05T12:00:00Z&until=2026-11-05T13:00:00Z"
	for query, name := range map[string]string{
		"until=2026-11-05T13:00:00Z":                 "since",
		"since=2026-11-05T12:00:00Z":                 "until",
		"since=yesterday&until=2026-11-05T13:00:00Z": "since",
		good + "&limit=0":                            "limit",
		good + "&limit=1001":                         "limit",
		good + "&after=elsewhere":                    "after",
	} {
		w := httptest.NewRecorder()
		handler(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/events?"+query, nil))
		if w.Code != http.StatusBadRequest || !strings.Contains(w.Body.String(), `"field":"`+name+`"`) {
			t.Errorf("%s: %d %s, want 400 for %s", query, w.Code, w.Body, name)
		}
	}
}

func TestHandled(t *testing.T) {
	t.Parallel()
	lost, found := uuid.NewString(), uuid.NewString()
	books := audit.Books{
		Queues:           []string{"worker.thing.made"},
		DeadLetterSuffix: ".dlq",
		Unhandled: func(_ context.Context, _ string, subjects []string) ([]string, error) {
			if len(subjects) != 2 {
				t.Errorf("asked for %v", subjects)
			}
			return []string{lost}, nil
		},
	}
	ask := func(t *testing.T, body string) *httptest.ResponseRecorder {
		t.Helper()
		w := httptest.NewRecorder()
		r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/handled", strings.NewReader(body))
		r.Header.Set("Content-Type", "application/json")
		web.Handle(audit.HandledHandler(books))(w, r)
		return w
	}
	question := `{"queue":"worker.thing.made","subjects":["` + lost + `","` + found + `"]}`

	t.Run("refuses what PostgreSQL takes for no UUID", func(t *testing.T) {
		for _, subject := range []string{"urn:uuid:" + lost, "{" + lost + "}", "xx"} {
			w := ask(t, `{"queue":"worker.thing.made","subjects":["`+subject+`"]}`)
			if w.Code != http.StatusUnprocessableEntity && w.Code != http.StatusBadRequest {
				t.Errorf("%s: %d %s", subject, w.Code, w.Body)
			}
		}
	})

	t.Run("lists what was not handled, and what waits", func(t *testing.T) {
		books.Waiting = func(_ context.Context, queue string) (int, error) { return len(queue), nil }
		var answer audit.Answer
		if err := json.Unmarshal(ask(t, question).Body.Bytes(), &answer); err != nil {
			t.Fatal(err)
		}
		if len(answer.Unhandled) != 1 || answer.Unhandled[0] != lost {
			t.Errorf("unhandled %v", answer.Unhandled)
		}
		d := answer.Depth
		if d.Waiting != len("worker.thing.made") || d.DeadLettered == nil ||
			*d.DeadLettered != len("worker.thing.made.dlq") || d.Problem != "" {
			t.Errorf("depth %+v", d)
		}
	})
	t.Run("knows what waits although it may not look at dead letters", func(t *testing.T) {
		books.Waiting = func(_ context.Context, queue string) (int, error) {
			if strings.HasSuffix(queue, ".dlq") {
				return 0, errors.New("403 ACCESS_REFUSED")
			}
			return 7, nil
		}
		var answer audit.Answer
		if err := json.Unmarshal(ask(t, question).Body.Bytes(), &answer); err != nil {
			t.Fatal(err)
		}
		if d := answer.Depth; d.Waiting != 7 || d.DeadLettered != nil || d.Problem != "" {
			t.Errorf("depth %+v", d)
		}
	})
	t.Run("answers although the broker cannot be asked", func(t *testing.T) {
		books.Waiting = func(context.Context, string) (int, error) { return 0, errors.New("no such queue") }
		var answer audit.Answer
		if err := json.Unmarshal(ask(t, question).Body.Bytes(), &answer); err != nil {
			t.Fatal(err)
		}
		if len(answer.Unhandled) != 1 || answer.Depth.Problem != "no such queue" {
			t.Errorf("answered %+v", answer)
		}
	})
	t.Run("refuses other queues and what is no id", func(t *testing.T) {
		for body, field := range map[string]string{
			`{"queue":"worker.thing.broken","subjects":[]}`:    "queue",
			`{"queue":"worker.thing.made","subjects":["one"]}`: "subjects[0]",
		} {
			w := ask(t, body)
			if w.Code != http.StatusUnprocessableEntity || !strings.Contains(w.Body.String(), `"field":"`+field+`"`) {
				t.Errorf("%s: %d %s, want 422 for %s", body, w.Code, w.Body, field)
			}
		}
	})
}
