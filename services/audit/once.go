package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/url"
	"os"
	"time"

	"orderflow.internal/audit/internal/books"
	"orderflow.internal/kit/run"
)

const onceSummary = "compare the services' books of every order once, and say what differs"

const onceHelp = `Usage: audit once [--url URL] [--since TIME] [--rate N] [--grace TIME] [--most N]
                  [--json | --commands]

Compares every order with its reservation, the stock, its customer's history and its events, on a running system, and
names what differs with the commands that repair it. It changes nothing. In a checkout, hack/audit runs it.

  --url URL      the gateway (GATEWAY_URL)
  --since TIME   orders placed then or later: 2026-11-05T09:30:00Z, or 24h for a day ago; leaves the stock out
  --rate N       at most N orders per second (24000)
  --grace TIME   a difference counts when it is still there after that (10s)
  --most N       name at most N differences, count the others (1000)
  --json         the report as JSON
  --commands     only the commands that repair what was found

Where the gateway wants access tokens, AUTH_ISSUER, AUTH_CLIENT_ID and AUTH_CLIENT_SECRET name a client of scope
operations.

Exit status: 0 the books balance, 1 it could not be found out, 2 wrong arguments, 3 they do not balance.
`

// exitUnbalanced is the exit status for books that do not balance.
const exitUnbalanced = 3

func once(ctx context.Context, call run.Call, cfg config) error {
	flags := flag.NewFlagSet("once", flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	settings := books.Config{}
	base, since := cfg.Gateway.String(), ""
	var asJSON, commands bool
	flags.StringVar(&base, "url", base, "")
	flags.StringVar(&since, "since", "", "")
	flags.IntVar(&settings.Rate, "rate", 24_000, "")
	flags.DurationVar(&settings.Grace, "grace", 10*time.Second, "")
	flags.IntVar(&settings.Named, "most", 1_000, "")
	flags.BoolVar(&asJSON, "json", false, "")
	flags.BoolVar(&commands, "commands", false, "")
	err := flags.Parse(call.Args)
	gateway, errURL := url.Parse(base)
	switch {
	case err != nil:
	case flags.NArg() > 0:
		err = fmt.Errorf("unknown argument %q", flags.Arg(0))
	case errURL != nil || gateway.Host == "":
		err = fmt.Errorf("--url %q: must be http://host:port or https://host:port", base)
	case settings.Rate < 1 || settings.Grace <= 0 || settings.Named < 0:
		err = errors.New("--rate and --grace must be positive")
	case since != "":
		settings.Since, err = parseSince(since)
	}
	if err != nil {
		return fmt.Errorf("%w: %w", run.ErrUsage, err)
	}
	report, err := books.New(settings, newClient(cfg, *gateway)).Run(ctx, showProgress())
	switch {
	case asJSON:
		encoder := json.NewEncoder(call.Stdout)
		encoder.SetIndent("", "  ")
		err = errors.Join(err, encoder.Encode(report))
	case commands:
		report.WriteCommands(call.Stdout)
	case err == nil:
		report.Write(call.Stdout)
	}
	if err == nil && !report.Balanced() {
		err = &run.ExitError{Code: exitUnbalanced, Message: report.Verdict()}
	}
	return err
}

// parseSince reads a time, or how long ago it was.
func parseSince(value string) (time.Time, error) {
	if ago, err := time.ParseDuration(value); err == nil && ago > 0 {
		return time.Now().Add(-ago), nil
	}
	at, err := time.Parse(time.RFC3339, value)
	if err != nil {
		err = errors.New("--since must be a time such as 2026-11-05T09:30:00Z, or how long ago, such as 24h")
	}
	return at, err
}

// showProgress tells somebody who waits at a terminal how far it has come.
func showProgress() func(books.Report) {
	info, err := os.Stderr.Stat()
	if err != nil || info.Mode()&os.ModeCharDevice == 0 {
		return func(books.Report) {}
	}
	var shown time.Time
	return func(r books.Report) {
		if time.Since(shown) < time.Second {
			return
		}
		shown = time.Now()
		fmt.Fprintf(os.Stderr, "\r%d orders compared, %d differences ", r.Orders, r.Total())
	}
}
