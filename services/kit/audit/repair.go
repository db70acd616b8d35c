package audit

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"orderflow.internal/kit/run"
)

// RepairFlags is the part of a repair's help that all of them share.
const RepairFlags = `  --order ID     the order; may be repeated; - reads ids from standard input, one a line
  --by NAME      who is doing it, for the record (the user and host of the process)
  --yes          do it

Without --yes it only says what it would do. What it does is recorded in the table repairs, with what was there before.
`

// Repair is how a command was called that changes the books by hand. No event
// and no service does what it does: somebody has decided it.
type Repair struct {
	Orders []uuid.UUID
	By     string
	Yes    bool
	name   string
	out    io.Writer
}

// ParseRepair reads the flags of a repair and those that more defines.
func ParseRepair(call run.Call, name string, more func(*flag.FlagSet)) (*Repair, error) {
	r := &Repair{name: name, out: call.Stdout}
	flags := flag.NewFlagSet(name, flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	flags.Func("order", "", func(value string) error { return r.addOrder(call.Stdin, value) })
	flags.StringVar(&r.By, "by", run.Operator(), "")
	flags.BoolVar(&r.Yes, "yes", false, "")
	if more != nil {
		more(flags)
	}
	err := flags.Parse(call.Args)
	if err == nil && flags.NArg() > 0 {
		err = fmt.Errorf("unknown argument %q", flags.Arg(0))
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", run.ErrUsage, err)
	}
	return r, nil
}

// NeedOrders is an error of usage unless there are orders.
func (r *Repair) NeedOrders() error {
	if len(r.Orders) == 0 {
		return fmt.Errorf("%w: --order is needed", run.ErrUsage)
	}
	return nil
}

func (r *Repair) addOrder(in io.Reader, value string) error {
	add := func(text string) error {
		id, err := uuid.Parse(text)
		if err != nil {
			return fmt.Errorf("%q is not an order's id", text)
		}
		if !slices.Contains(r.Orders, id) {
			r.Orders = append(r.Orders, id)
		}
		return nil
	}
	if value != "-" {
		return add(value)
	}
	lines := bufio.NewScanner(in)
	for lines.Scan() {
		if text := strings.TrimSpace(lines.Text()); text != "" {
			if err := add(text); err != nil {
				return err
			}
		}
	}
	return lines.Err()
}

// Printf tells the operator something.
func (r *Repair) Printf(format string, args ...any) { fmt.Fprintf(r.out, format, args...) }

// ErrPreview rolls back what a preview has tried.
var ErrPreview = errors.New("a preview changes nothing")

// Conclude records what a transaction did with a subject and, in a preview,
// returns ErrPreview. Before and after are what was there and what is.
func (r *Repair) Conclude(ctx context.Context, tx pgx.Tx, subject uuid.UUID, before, after any) error {
	texts := make([]string, 2)
	for i, v := range []any{before, after} {
		text, err := json.Marshal(v)
		if err != nil {
			return fmt.Errorf("record a repair: %w", err)
		}
		texts[i] = string(text)
	}
	r.Printf("%s\n  before: %s\n  after:  %s\n", subject, texts[0], texts[1])
	if !r.Yes {
		return ErrPreview
	}
	if _, err := tx.Exec(ctx, `
insert into repairs (by, command, subject, before, after)
values ($1, $2, $3, $4::jsonb, $5::jsonb)`, r.By, r.name, subject, texts[0], texts[1]); err != nil {
		return fmt.Errorf("record a repair: %w", err)
	}
	return nil
}

// Done says what came of it all, and what to do after a preview.
func (r *Repair) Done(changed int) {
	switch {
	case changed == 0:
		r.Printf("There is nothing to do.\n")
	case r.Yes:
		r.Printf("%d changed.\n", changed)
	default:
		r.Printf("%d would change. Nothing was changed: add --yes to do it.\n", changed)
	}
}
