package api

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestARefusalIsReadable(t *testing.T) {
	for answer, want := range map[string]string{
		`{"title":"Conflict","detail":"It is taken."}`:                           "status 409: Conflict: It is taken.",
		`{"title":"Not valid","errors":[{"field":"why","detail":"is missing"}]}`: "status 409: Not valid\n  why: is missing",
		`{"title":"Taken","errors":[` + strings.Repeat(`{"field":"f","detail":"d"},`, 6) +
			`{"field":"f"}]}`: "status 409: Taken" + strings.Repeat("\n  f: d", 5) + "\n  and 2 more",
		`<html>`: "status 409: <html>",
		`{}`:     "status 409: {}",
	} {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusConflict)
			_, _ = io.WriteString(w, answer)
		}))
		err := Get(t.Context(), server.URL, nil)
		server.Close()
		if diff := cmp.Diff(want, err.Error()); diff != "" {
			t.Errorf("%s (-want +got):\n%s", answer, diff)
		}
	}
}
