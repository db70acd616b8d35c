package web

import (
	"errors"
	"net/http"
	"strings"
	"testing"

	"github.com/google/uuid"
)

func TestFaultsNameEveryFieldInOneAnswer(t *testing.T) {
	number := func(n int64) *int64 { return &n }
	var f Faults
	if err := f.Err(); err != nil {
		t.Fatalf("without a fault: %v", err)
	}
	f.Number("missing", nil, 1, 3)
	f.Number("least", number(1), 1, 3)
	f.Number("most", number(3), 1, 3)
	f.Number("low", number(0), 1, 3)
	f.Number("high", number(4), 1, 3)
	f.Text("blank", " \t", 3)
	f.Text("full", "äöü", 3)
	f.Text("long", "äöü?", 3)
	f.Text("control", "a\nb", 3)
	f.ID("absent", nil)
	f.ID("nil", &uuid.Nil)
	f.ID("any", &uuid.Max)

	problem, ok := errors.AsType[*Problem](f.Err())
	if !ok || problem.Status != http.StatusUnprocessableEntity {
		t.Fatalf("%v", f.Err())
	}
	var fields []string
	for _, e := range problem.Errors {
		fields = append(fields, e.Field)
	}
	if got := strings.Join(fields, " "); got != "missing low high blank long control nil" {
		t.Errorf("faults at %q: %v", got, problem.Errors)
	}
}
