package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"orderflow.internal/hack/internal/api"
)

// letters is the dead letters' API at a gateway. What it answers is printed, for jq and for eyes.
type letters struct {
	program
	base string

	queue, order, text, why string
	group, letter           int64
	redrive                 string
	rate, limit             int
	skipTaken, unknown      bool
}

func (p program) deadletters() *cobra.Command {
	l := &letters{program: p}
	cmd := &cobra.Command{
		Use:   "deadletters",
		Short: "Show and redrive the dead letters of a running system",
		Long: `Shows messages that no consumer could handle, and sends them back to their queues: plan, start, watch.

docs/runbooks/dead-letters.md is the way through it. Whatever is selected with --queue, --group, --order and --text has
to match all of them.`,
	}
	cmd.PersistentFlags().StringVar(&l.base, "base-url", p.gateway(), "the gateway's `url`")
	add := func(use, short string, args int, run func(ctx context.Context, args []string) error,
		flags ...func(*cobra.Command)) {
		sub := &cobra.Command{Use: use, Short: short, Args: cobra.ExactArgs(args),
			RunE: func(cmd *cobra.Command, args []string) error {
				ctx, err := api.Context(cmd.Context(), l.base)
				if err != nil {
					return err
				}
				return run(ctx, args)
			}}
		for _, flag := range flags {
			flag(sub)
		}
		cmd.AddCommand(sub)
	}
	add("groups", "List the causes, the latest first", 0, l.list("/groups", "groups"), l.limited)
	add("list", "List letters, the latest first", 0, l.list("", "letters"), l.selected, l.limited)
	add("show LETTER", "Show one letter with its headers, body and history", 1, l.get("/%s"))
	add("export", "Print letters as JSON lines", 0, func(ctx context.Context, _ []string) error {
		return l.send(ctx, http.MethodGet, "/export?"+l.query().Encode(), nil, os.Stdout)
	}, l.selected)
	add("discard", "Discard letters: they will not be redriven", 0, func(ctx context.Context, _ []string) error {
		return l.post(ctx, "/discard", map[string]any{"selection": l.selection(), "why": l.why})
	}, l.selected, l.reasoned)
	add("plan", "Plan a redrive of the letters there are now, without starting it", 0,
		func(ctx context.Context, _ []string) error {
			selection := l.selection()
			selection["unknown"] = l.unknown
			return l.post(ctx, "/redrives", map[string]any{"selection": selection, "why": l.why, "rate": l.rate})
		}, l.selected, l.reasoned, l.planned)
	add("start REDRIVE", "Start a plan", 1, func(ctx context.Context, args []string) error {
		return l.post(ctx, "/redrives/"+url.PathEscape(args[0])+"/start",
			map[string]any{"why": l.why, "skipTaken": l.skipTaken})
	}, l.reasoned, func(cmd *cobra.Command) {
		cmd.Flags().BoolVar(&l.skipTaken, "skip-taken", false, "leave out letters that other running redrives have")
	})
	for step, short := range map[string]string{
		"pause": "Pause a redrive", "resume": "Resume a redrive", "cancel": "Cancel a redrive",
	} {
		add(step+" REDRIVE", short, 1, func(ctx context.Context, args []string) error {
			return l.post(ctx, "/redrives/"+url.PathEscape(args[0])+"/"+step, map[string]any{"why": l.why})
		}, l.reasoned)
	}
	add("redrives", "List redrives, the newest first", 0, l.list("/redrives", "redrives"), l.limited)
	add("watch REDRIVE", "Follow a redrive until it is over, or stops", 1, l.watch)
	add("history", "List what was done, the newest first", 0, l.list("/history", "entries"), l.limited, l.entries)
	return cmd
}

func (l *letters) selected(cmd *cobra.Command) {
	cmd.Flags().StringVar(&l.queue, "queue", "", "letters that died in this queue")
	cmd.Flags().Int64Var(&l.group, "group", 0, "letters of this group")
	cmd.Flags().StringVar(&l.order, "order", "", "letters about this order")
	cmd.Flags().StringVar(&l.text, "text", "", "letters with this text in the body or the error")
}

func (l *letters) limited(cmd *cobra.Command) {
	cmd.Flags().IntVar(&l.limit, "limit", 50, "at most this many")
}

func (l *letters) planned(cmd *cobra.Command) {
	cmd.Flags().IntVar(&l.rate, "rate", 100,
		"at most this many letters per second; the service sends no more than its REDRIVE_RATE")
	cmd.Flags().BoolVar(&l.unknown, "unknown", false,
		"redriven letters of which nothing was heard, too: they may be handled already")
}

func (l *letters) entries(cmd *cobra.Command) {
	cmd.Flags().StringVar(&l.redrive, "redrive", "", "what was done by this redrive")
	cmd.Flags().Int64Var(&l.letter, "letter", 0, "what was done about this letter")
}

func (l *letters) reasoned(cmd *cobra.Command) {
	cmd.Flags().StringVar(&l.why, "why", "", "the reason, for the history")
}

// selection is what the flags select.
func (l *letters) selection() map[string]any {
	all := map[string]any{}
	for name, value := range map[string]string{"queue": l.queue, "orderId": l.order, "text": l.text} {
		if value != "" {
			all[name] = value
		}
	}
	if l.group != 0 {
		all["groupId"] = l.group
	}
	return all
}

func (l *letters) query() url.Values {
	query := url.Values{}
	for name, value := range l.selection() {
		query.Set(name, fmt.Sprint(value))
	}
	if l.redrive != "" {
		query.Set("redriveId", l.redrive)
	}
	if l.letter != 0 {
		query.Set("letterId", strconv.FormatInt(l.letter, 10))
	}
	return query
}

const largestPage = 200 // of the API

// list prints what is in a list, and says when there is more.
func (l *letters) list(path, key string) func(context.Context, []string) error {
	return func(ctx context.Context, _ []string) error {
		if l.limit < 1 {
			return errors.New("--limit must be positive")
		}
		found, more, err := l.pages(ctx, path, key)
		if err != nil {
			return err
		}
		if more {
			fmt.Fprintf(os.Stderr, "There are more than these %d; --limit shows more\n", len(found))
		}
		return printJSON(map[string]any{key: found})
	}
}

// pages reads a list, page after page up to the limit.
func (l *letters) pages(ctx context.Context, path, key string) (found []json.RawMessage, more bool, err error) {
	query := l.query()
	found = []json.RawMessage{}
	for len(found) < l.limit {
		query.Set("limit", strconv.Itoa(min(l.limit-len(found), largestPage)))
		var page map[string]json.RawMessage
		var some []json.RawMessage
		var next string
		if err := l.send(ctx, http.MethodGet, path+"?"+query.Encode(), nil, &page); err != nil {
			return nil, false, err
		}
		if err := json.Unmarshal(page[key], &some); err != nil {
			return nil, false, fmt.Errorf("read the answer's %s: %w", key, err)
		}
		if page["next"] != nil {
			if err := json.Unmarshal(page["next"], &next); err != nil {
				return nil, false, err
			}
		}
		found = append(found, some...)
		if next == "" {
			return found, false, nil
		}
		query.Set("after", next)
	}
	return found, true, nil
}

// get prints what is at a path, which names its argument.
func (l *letters) get(path string) func(context.Context, []string) error {
	return func(ctx context.Context, args []string) error {
		return l.show(ctx, http.MethodGet, fmt.Sprintf(path, url.PathEscape(args[0])), nil)
	}
}

func (l *letters) post(ctx context.Context, path string, body any) error {
	return l.show(ctx, http.MethodPost, path, body)
}

// show prints an answer so that people can read it.
func (l *letters) show(ctx context.Context, method, path string, body any) error {
	var answer json.RawMessage
	if err := l.send(ctx, method, path, body, &answer); err != nil {
		return err
	}
	return printJSON(answer)
}

func printJSON(value any) error {
	out := json.NewEncoder(os.Stdout)
	out.SetEscapeHTML(false)
	out.SetIndent("", "  ")
	return out.Encode(value)
}

func (l *letters) send(ctx context.Context, method, path string, body, out any) error {
	return api.Call(ctx, method, l.base+"/deadletters"+path, nil, body, out)
}

// watch prints a line whenever a redrive has got on.
func (l *letters) watch(ctx context.Context, args []string) error {
	path := "/redrives/" + url.PathEscape(args[0])
	last := ""
	for {
		var r struct {
			State, StoppedBecause               string
			StoppedLetterID                     int64
			Total, Sent, Handled, Died, Unknown int
		}
		if err := l.send(ctx, http.MethodGet, path, nil, &r); err != nil {
			return err
		}
		line := fmt.Sprintf("%s: %d of %d handled, %d on their way, %d died again, %d unknown",
			r.State, r.Handled, r.Total, r.Sent, r.Died, r.Unknown)
		if r.State == "stopped" {
			line += "; " + r.StoppedBecause + ", letter " + strconv.FormatInt(r.StoppedLetterID, 10)
		}
		if line != last {
			l.Printf("%s", line)
			last = line
		}
		if r.State != "running" {
			return nil
		}
		if err := api.Sleep(ctx, 500*time.Millisecond); err != nil {
			return err
		}
	}
}
