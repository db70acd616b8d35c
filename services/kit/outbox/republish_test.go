package outbox_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"orderflow.internal/kit/bus"
	"orderflow.internal/kit/outbox"
	"orderflow.internal/kit/run"
)

// republish runs the command and returns what it printed.
func (f *fixture) republish(t *testing.T, stdin string, args ...string) (string, error) {
	t.Helper()
	p := bus.NewPublisher(bus.Config{URL: f.url, Prefetch: 1, Batch: 1, ConfirmTimeout: 5 * time.Second}, "test republish",
		"things.exchange", "things.redelivery")
	var out bytes.Buffer
	err := outbox.RepublishCommand(t.Context(), run.Call{Args: args, Stdin: strings.NewReader(stdin), Stdout: &out},
		f.pool, p, routes, f.state)
	return out.String(), err
}

func (f *fixture) mustRepublish(t *testing.T, stdin string, args ...string) string {
	t.Helper()
	out, err := f.republish(t, stdin, args...)
	if err != nil {
		t.Fatalf("republish %v: %v\n%s", args, err, out)
	}
	return out
}

// past stores events that were published a while ago.
func (f *fixture) past(t *testing.T, key string, from, to int, ago time.Duration) {
	t.Helper()
	stored := f.store(t, key, from, to)
	f.exec(t, "update outbox_events set created_at = now() - $2::interval, published_at = now() where id = any($1)",
		ids(stored), ago)
}

func TestRepublish(t *testing.T) {
	t.Parallel()
	f := setup(t)
	f.past(t, "thing.made", 0, 20, 3*time.Hour)
	f.past(t, "pair.made", 10, 30, 2*time.Hour)
	f.past(t, "pair.made", 30, 40, time.Hour)
	f.store(t, "pair.made", 40, 45) // not published yet: the relay's
	from := func(from, to int) map[string]int {
		want := map[string]int{}
		for i := from; i < to; i++ {
			want[fmt.Sprint(i)] = 1
		}
		return want
	}
	nothing := from(0, 0)
	for name, tt := range map[string]struct {
		stdin               string
		args                []string
		things, left, right map[string]int
	}{
		"everything since a moment": {"", []string{"--since", "150m"}, nothing, from(10, 40), from(10, 40)},
		"everything": {"", []string{"--since", "1970-01-01T00:00:00Z"}, from(0, 20), from(10, 40),
			from(10, 40)},
		"a range of time": {"", []string{"--since", "4h", "--until", "90m"}, from(0, 20), from(10, 30),
			from(10, 30)},
		"one key":            {"", []string{"--since", "24h", "--key", "thing.made"}, from(0, 20), nothing, nothing},
		"to one queue alone": {"", []string{"--since", "24h", "--queue", "right"}, nothing, nothing, from(10, 40)},
		"to two queues alone": {"", []string{"--since", "24h", "--queue", "right", "--queue", "left"}, nothing,
			from(10, 40), from(10, 40)},
		"one order":              {"", []string{"--subject", "15"}, from(15, 16), from(15, 16), from(15, 16)},
		"one order to one queue": {"", []string{"--subject", "15", "--queue", "left"}, nothing, from(15, 16), nothing},
		"a list": {"15\n\n16\n unknown\n42\n", []string{"--subject", "-"}, from(15, 17), from(15, 17),
			from(15, 17)},
		"a list since a moment": {"15\n35\n", []string{"--subject", "-", "--since", "90m"}, nothing, from(35, 36),
			from(35, 36)},
		"at any rate": {"", []string{"--subject", "15", "--rate", "1000000"}, from(15, 16), from(15, 16), from(15, 16)},
	} {
		t.Run(name, func(t *testing.T) {
			preview := f.mustRepublish(t, tt.stdin, tt.args...)
			if !strings.Contains(preview, "Nothing was published. Add --yes to do it.") {
				t.Errorf("the preview is\n%s", preview)
			}
			out := f.mustRepublish(t, tt.stdin, append(tt.args, "--yes", "--by", "a test")...)
			for queue, want := range map[string]map[string]int{"things": tt.things, "left": tt.left, "right": tt.right} {
				if got := f.consume(t, queue, len(want)); fmt.Sprint(got) != fmt.Sprint(want) {
					t.Errorf("%s got %v, want %v\n%s", queue, got, want, out)
				}
			}
			if n := query[int](t, f, "select count(*) from outbox_republished where started_by = 'a test' "+
				"and published = total and refused = 0 and finished_at >= started_at and error is null"); n != 1 {
				t.Errorf("%d records of it", n)
			}
			f.exec(t, "delete from outbox_republished")
		})
	}
	if n := f.unpublished(t); n != 5 {
		t.Errorf("%d events are unpublished, want the 5 that were", n)
	}
}

func TestRepublishOfManyEventsOfOneMoment(t *testing.T) {
	t.Parallel()
	f := setup(t)
	f.past(t, "thing.made", 0, 5000, time.Hour)
	f.mustRepublish(t, "", "--since", "2h", "--yes", "--rate", "100000")
	once(t, f.consume(t, "things", 5000))
}

func TestRepublishKeepsItsRate(t *testing.T) {
	t.Parallel()
	f := setup(t)
	f.past(t, "thing.made", 0, 60, time.Hour)
	started := time.Now()
	f.mustRepublish(t, "", "--since", "2h", "--yes", "--rate", "10")
	if took := time.Since(started); took < 6*time.Second {
		t.Errorf("60 events at 10 per second took %s", took)
	}
	once(t, f.consume(t, "things", 60))
}

func TestRepublishSaysWhatWasRefused(t *testing.T) {
	t.Parallel()
	f := setup(t)
	f.past(t, "pair.made", 0, 3, time.Hour)
	f.vhost.Manage(t, http.MethodDelete, "/api/queues/"+f.vhost.Name+"/right", nil)
	out, err := f.republish(t, "", "--since", "2h", "--queue", "right", "--yes")
	if err == nil || !strings.Contains(out, "0 of 3 events published, 3 refused.\n  pair.made: 312 NO_ROUTE") {
		t.Errorf("%v\n%s", err, out)
	}
	if n := query[int](t, f, "select count(*) from outbox_republished where refused = 3 and published = 0 "+
		"and queue = 'right' and error like '%NO_ROUTE%' and finished_at is not null"); n != 1 {
		t.Error("there is no record of it")
	}
}

// For what is older than the outbox, a service makes the events once more.
func TestRepublishFromState(t *testing.T) {
	t.Parallel()
	f := setup(t)
	f.past(t, "pair.made", 0, 5, time.Hour) // is not asked
	page := func(from, to int) (made []bus.Event) {
		for i := range to - from {
			key := "pair.made"
			if i%2 == 1 {
				key = "thing.made"
			}
			made = append(made, events(t, key, from+i, from+i+1)...)
		}
		return made
	}
	f.state = &outbox.State{
		Queues: []string{"things", "right"},
		Count: func(context.Context, *pgxpool.Pool, outbox.Selection) (map[string]int64, error) {
			return map[string]int64{"pair.made": 1000, "thing.made": 1000}, nil
		},
		Each: func(_ context.Context, _ *pgxpool.Pool, s outbox.Selection, do func([]bus.Event) error) error {
			if !s.Since.Equal(time.Unix(0, 0)) {
				t.Errorf("selected %+v", s)
			}
			return errors.Join(do(page(0, 1000)), do(page(1000, 2000)))
		},
	}
	args := []string{"--from-state", "--since", "1970-01-01T00:00:00Z", "--rate", "100000", "--queue", "right"}
	if out := f.mustRepublish(t, "", args...); !strings.Contains(out, "1000    pair.made    right") ||
		strings.Contains(out, "thing.made") {
		t.Errorf("the preview is\n%s", out)
	}
	f.mustRepublish(t, "", append(args, "--yes")...)
	once(t, f.consume(t, "right", 1000))
	if got := f.consume(t, "left", 0); len(got) > 0 {
		t.Errorf("others got %v", got)
	}
	out := f.mustRepublish(t, "", append(args, "--yes", "--queue", "things")...)
	if !strings.Contains(out, "2000 of 2000 events published, 0 refused.") {
		t.Errorf("it said\n%s", out)
	}
	once(t, f.consume(t, "right", 1000))
	once(t, f.consume(t, "things", 1000))
	if n := query[int](t, f, "select count(*) from outbox_republished where selection->>'fromState' = 'true' "+
		"and queue = 'right, things' and published = 2000"); n != 1 {
		t.Errorf("%d records of it", n)
	}
	for args, want := range map[string]string{
		"--from-state --since 1h":              "--from-state needs --queue, one or several of things, right",
		"--from-state --since 1h --queue left": "--from-state is not for left",
	} {
		if _, err := f.republish(t, "", strings.Fields(args)...); !errors.Is(err, run.ErrUsage) ||
			!strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %s", args, err, want)
		}
	}
}

func TestRepublishRejectsWrongArguments(t *testing.T) {
	t.Parallel()
	f := &fixture{}
	for args, want := range map[string]string{
		"":                                   "--since or --subject is needed",
		"--key thing.made":                   "--since or --subject is needed",
		"--since yesterday":                  "must be a time such as",
		"--since 2026-11-05T09:30:00Z more":  `unknown argument "more"`,
		"--subject 1 --rate 0":               "--rate must be at least 1",
		"--subject 1 --queue middle":         "the queues are left, right, things",
		"--subject 1 --queue left --key a.b": "--queue left gets no such events",
		"--subject 1 --from-state":           "flag provided but not defined: -from-state",
		"--subject 1 --all":                  "flag provided but not defined: -all",
	} {
		t.Run(args, func(t *testing.T) {
			out, err := f.republish(t, "", strings.Fields(args)...)
			if !errors.Is(err, run.ErrUsage) || !strings.Contains(err.Error(), want) {
				t.Errorf("got %v %s, want %s", err, out, want)
			}
		})
	}
}
