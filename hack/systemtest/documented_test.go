package systemtest

import (
	"fmt"
	"os/exec"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"orderflow.internal/hack/docs"
	"orderflow.internal/hack/stack"
)

// TestDocumentedCommands runs the commands and statements of all pages whose block says test, in the order of the
// page, on a system that holds what hack/up fills it with: commands from the repository's root, where the address of
// the gateway is that of this system and an answer of 400 or more is a failure, statements in the database of orders.
func TestDocumentedCommands(t *testing.T) {
	s := start(t, variant{})
	pages, err := docs.Pages(t.Context(), s.Options.Root)
	if err != nil {
		t.Fatal(err)
	}
	shell(t, s, "hack/order --base-url http://localhost:5108")
	ran := map[string]int{}
	for _, p := range pages {
		for _, f := range p.Fences {
			if f.Mark != docs.Tested {
				continue
			}
			ran[f.Language]++
			t.Run(fmt.Sprintf("%s:%d", p.Path, f.Line), func(t *testing.T) {
				if f.Language == "sql" {
					statements(t, s, f.Text)
				} else {
					shell(t, s, f.Text)
				}
			})
		}
	}
	if ran["sh"] < 5 || ran["sql"] < 3 {
		t.Errorf("only %v were run: are the marks of the pages still read?", ran)
	}
}

// shell runs commands as a reader would, except that curl fails where the answer is an error.
func shell(t *testing.T, s *stack.Stack, commands string) {
	t.Helper()
	const strict = `set -euo pipefail; curl() { command curl --silent --show-error --fail-with-body "$@"; };` + "\n"
	commands = strings.ReplaceAll(commands, "http://localhost:5108", s.BaseURL())
	cmd := exec.CommandContext(t.Context(), "bash", "-c", strict+commands)
	cmd.Dir = s.Options.Root
	out, err := cmd.CombinedOutput()
	t.Logf("%s%s", commands, out)
	if err != nil {
		t.Error(err)
	}
}

func statements(t *testing.T, s *stack.Stack, sql string) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), administer(s, "orders"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context()) // only reads
	for statement := range strings.SplitSeq(sql, ";") {
		if _, err := conn.Exec(t.Context(), statement); err != nil {
			t.Errorf("%s: %v", statement, err)
		}
	}
}
