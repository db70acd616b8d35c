package webtest

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
)

const pet = "0198e1b2-7c3d-7a10-9f00-3c5f1d2b4a60"

// recorder notes failures instead of failing.
type recorder struct {
	testing.TB
	failures []string
}

func (r *recorder) Helper() {}
func (r *recorder) Errorf(format string, args ...any) {
	r.failures = append(r.failures, fmt.Sprintf(format, args...))
}

func TestExchanges(t *testing.T) {
	const good = `{"petId":"` + pet + `","tag":null}`
	tests := map[string]struct {
		method, path, request string
		status                int
		header                map[string]string
		body                  string
		want                  string // part of the failure, "" when it conforms
	}{
		"as documented":       {"POST", "/pets", `{"name":"Rex"}`, 201, map[string]string{"ETag": `"1"`}, good, ""},
		"missing header":      {"POST", "/pets", `{"name":"Rex"}`, 201, nil, good, "ETag"},
		"malformed header":    {"POST", "/pets", `{"name":"Rex"}`, 201, map[string]string{"ETag": "1"}, good, "ETag"},
		"forbidden request":   {"POST", "/pets", `{"nome":"Rex"}`, 201, map[string]string{"ETag": `"1"`}, good, "forbidden"},
		"undocumented status": {"POST", "/pets", `{"name":"Rex"}`, 500, nil, good, "not documented"},
		"missing field": {"POST", "/pets", `{"name":"Rex"}`, 201, map[string]string{"ETag": `"1"`},
			`{"petId":"` + pet + `"}`, "tag"},
		"undocumented field": {"POST", "/pets", `{"name":"Rex"}`, 201, map[string]string{"ETag": `"1"`},
			`{"petId":"` + pet + `","tag":"a","age":3}`, "age"},
		"undocumented inside": {"POST", "/pets", `{"name":"Rex"}`, 201, map[string]string{"ETag": `"1"`},
			`{"petId":"` + pet + `","tag":"a","owner":{"age":3}}`, "age"},
		"malformed uuid": {"POST", "/pets", `{"name":"Rex"}`, 201, map[string]string{"ETag": `"1"`},
			`{"petId":"7","tag":"a"}`, "uuid"},
		"malformed email": {"POST", "/pets", `{"name":"Rex"}`, 201, map[string]string{"ETag": `"1"`},
			`{"petId":"` + pet + `","tag":"a","owner":{"email":"x"}}`, "email"},
		"outside the enum": {"POST", "/pets", `{"name":"Rex"}`, 201, map[string]string{"ETag": `"1"`},
			`{"petId":"` + pet + `","tag":"c"}`, "enum"},
		"wrong content type": {"POST", "/pets", `{"name":"Rex"}`, 201,
			map[string]string{"ETag": `"1"`, "Content-Type": "text/plain"}, good, "Content-Type"},
		"no body, as said":   {"DELETE", "/pets/" + pet, "", 204, nil, "", ""},
		"bad id and success": {"DELETE", "/pets/7", "", 204, nil, "", "forbidden"},
		"headers only":       {"HEAD", "/pets/" + pet, "", 200, map[string]string{"ETag": `"1"`}, "", ""},
		"headers, other way": {"HEAD", "/pets/" + pet, "", 201, map[string]string{"ETag": `"1"`}, "", "not documented"},
		"headers of nothing": {"HEAD", "/cats", "", 404,
			map[string]string{"Content-Type": "application/problem+json"}, "", ""},
		"unknown path": {"GET", "/cats", "", 404, map[string]string{"Content-Type": "application/problem+json"},
			`{"type":"/x"}`, ""},
		"unknown path in text": {"GET", "/cats", "", 404, map[string]string{"Content-Type": "text/plain"}, "gone", "problem"},
		"unknown method": {"PUT", "/pets", "", 405, map[string]string{"Content-Type": "application/problem+json"},
			`{}`, "type"},
		"unknown path, 200": {"GET", "/cats", "", 200, nil, `{}`, "no matching"},
		"good event": {"GET", "/pets/" + pet + "/events", "", 200,
			map[string]string{"Content-Type": "text/event-stream"}, "event: pet\ndata: " + good + "\n\n", ""},
		"bad event": {"GET", "/pets/" + pet + "/events", "", 200, map[string]string{"Content-Type": "text/event-stream"},
			": hello\n\ndata: {\"tag\":\"a\"}\n\n", "petId"},
	}
	v := New(t, "testdata/pets.yaml")
	if got, want := v.Unanswered(), []string{
		"addPet 201", "deletePet 204", "followPet 200", "getPet 200",
	}; !slices.Equal(got, want) {
		t.Errorf("unanswered at first %q, want %q", got, want)
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Content-Type", "application/json")
				for k, value := range test.header {
					w.Header().Set(k, value)
				}
				w.WriteHeader(test.status)
				if test.body != "" {
					if _, err := io.WriteString(w, test.body); err != nil {
						t.Error(err)
					}
				}
			}))
			defer server.Close()
			failed := &recorder{TB: t}
			client := &http.Client{Transport: v.Transport(failed, nil)}
			req, err := http.NewRequest(test.method, server.URL+test.path, strings.NewReader(test.request))
			if err != nil {
				t.Fatal(err)
			}
			req.Header.Set("Content-Type", "application/json")
			resp, err := client.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			body, err := io.ReadAll(resp.Body)
			if err != nil {
				t.Fatal(err)
			}
			if err := resp.Body.Close(); err != nil {
				t.Fatal(err)
			}
			if string(body) != test.body {
				t.Errorf("body is %q, want %q", body, test.body)
			}
			expect(t, failed, test.want)

			if !isStream(resp) {
				// The same by hand: the request's body is got again by GetBody.
				failed = &recorder{TB: t}
				v.Check(failed, req, resp, body)
				expect(t, failed, test.want)
			}
		})
	}
	if got := v.Unanswered(); len(got) > 0 {
		t.Errorf("unanswered at last %q, want none", got)
	}
}

func expect(t *testing.T, failed *recorder, want string) {
	t.Helper()
	switch got := strings.Join(failed.failures, "\n"); {
	case want == "" && got != "":
		t.Errorf("failed with %s", got)
	case want != "" && !strings.Contains(got, want):
		t.Errorf("failed with %q, want %q in it", got, want)
	}
}
