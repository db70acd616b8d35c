package main

import (
	"context"
	"errors"
	"io"
	"strings"
	"testing"

	"orderflow.internal/kit/run"
)

const (
	someOrder   = "01234567-89ab-7def-8123-456789abcdef"
	someProduct = "11234567-89ab-7def-8123-456789abcdef"
)

// What a repair would have to ignore it refuses, before it needs the database.
func TestRepairsRefuseWhatTheyWouldIgnore(t *testing.T) {
	t.Parallel()
	const reserve = "--order " + someOrder + " --status Reserved"
	for name, tt := range map[string]struct {
		command func(context.Context, run.Call, config) error
		args    string
		want    string // "" if nothing is wrong with the arguments
	}{
		"prices without a currency": {setReservation, reserve + " --item " + someProduct + "=2@1250", "--currency is needed"},
		"some prices": {
			setReservation,
			reserve + " --currency EUR --item " + someProduct + "=2@1250 --item " + someOrder + "=1",
			"1 of 2 --item lack their price",
		},
		"all prices":         {setReservation, reserve + " --currency EUR --item " + someProduct + "=2@1250", ""},
		"no prices":          {setReservation, reserve + " --item " + someProduct + "=2", ""},
		"only a currency":    {setReservation, reserve + " --currency EUR --item " + someProduct + "=2", ""},
		"recount of orders":  {recount, "--order " + someOrder, "--order"},
		"recount of a thing": {recount, "--product " + someProduct, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			call := run.Call{Args: strings.Fields(tt.args), Stdin: strings.NewReader(""), Stdout: io.Discard}
			err := tt.command(t.Context(), call, config{}) // there is no database to open
			if err == nil || errors.Is(err, run.ErrUsage) != (tt.want != "") || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want one of usage with %q", err, tt.want)
			}
		})
	}
}
