package main

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// build writes files as npm run build leaves them and returns their folder.
func build(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

var built = map[string]string{
	"index.html":             "<html>",
	"index.html.br":          "br of index",
	"index.html.gz":          "gz of index",
	"theme.js":               "theme",
	"assets/shop-abc.js":     "shop",
	"assets/shop-abc.js.br":  "br of shop",
	"assets/shop-abc.js.gz":  "gz of shop",
	"assets/font-def.woff2":  "font",
	".vite/manifest.json":    "{}",
	".vite/manifest.json.br": "not ours",
}

func newTestHandler(t *testing.T, cfg config) http.Handler {
	t.Helper()
	pages, err := load(build(t, built))
	if err != nil {
		t.Fatal(err)
	}
	return newHandler(cfg, pages)
}

func get(t *testing.T, h http.Handler, method, path string, headers ...string) (*http.Response, string) {
	t.Helper()
	r := httptest.NewRequest(method, path, nil)
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	body, err := io.ReadAll(w.Result().Body)
	if err != nil {
		t.Fatal(err)
	}
	return w.Result(), string(body)
}

func TestPages(t *testing.T) {
	h := newTestHandler(t, config{})
	const immutable, fresh = "public, max-age=31536000, immutable", "no-cache"
	for _, test := range []struct {
		path, accept string
		status       int
		contentType  string
		cache        string
		body         string
	}{
		{"/", "", 200, "text/html; charset=utf-8", fresh, "<html>"},
		{"/basket", "", 200, "text/html; charset=utf-8", fresh, "<html>"},
		{"/order/0198e1b2-7c3d-7a10-9f00-3c5f1d2b4a60", "", 200, "text/html; charset=utf-8", fresh, "<html>"},
		{"/history", "", 200, "text/html; charset=utf-8", fresh, "<html>"},
		{"/history/550e8400-e29b-41d4-a716-446655440000", "", 200, "text/html; charset=utf-8", fresh, "<html>"},
		{"/stock", "", 200, "text/html; charset=utf-8", fresh, "<html>"},
		{"/operations/letters/17", "", 200, "text/html; charset=utf-8", fresh, "<html>"},
		{"/assets/shop-abc.js", "", 200, "text/javascript; charset=utf-8", immutable, "shop"},
		{"/assets/font-def.woff2", "", 200, "font/woff2", immutable, "font"},
		{"/theme.js", "", 200, "text/javascript; charset=utf-8", fresh, "theme"},
		{"/nowhere", "text/html,*/*", 404, "text/html; charset=utf-8", fresh, "<html>"},
		{"/nowhere", "", 404, "application/problem+json", "", ""},
		{"/assets/gone.js", "text/html", 404, "application/problem+json", "", ""},
		{"/index.html", "", 404, "application/problem+json", "", ""},
		{"/index.html.br", "", 404, "application/problem+json", "", ""},
		{"/.vite/manifest.json", "", 404, "application/problem+json", "", ""},
		{"/assets/", "", 404, "application/problem+json", "", ""},
		{"/assets/../theme.js", "", 404, "application/problem+json", "", ""},
	} {
		t.Run(test.path+" "+test.accept, func(t *testing.T) {
			resp, body := get(t, h, http.MethodGet, test.path, "Accept", test.accept)
			if resp.StatusCode != test.status || resp.Header.Get("Content-Type") != test.contentType {
				t.Errorf("%d %s, want %d %s", resp.StatusCode, resp.Header.Get("Content-Type"), test.status, test.contentType)
			}
			if test.cache != "" && resp.Header.Get("Cache-Control") != test.cache {
				t.Errorf("Cache-Control is %q, want %q", resp.Header.Get("Cache-Control"), test.cache)
			}
			if test.body != "" && body != test.body {
				t.Errorf("body is %q, want %q", body, test.body)
			}
			if got := resp.Header.Get("Content-Security-Policy"); got != fmt.Sprintf(policy, "") {
				t.Errorf("Content-Security-Policy is %q", got)
			}
		})
	}
}

func TestPolicyAllowsNothingInline(t *testing.T) {
	for _, hole := range []string{"unsafe", "data:", "blob:", "*", "http:", "https:", "nonce", "sha256"} {
		if strings.Contains(policy, hole) {
			t.Errorf("the policy has %s", hole)
		}
	}
}

func TestEncodings(t *testing.T) {
	h := newTestHandler(t, config{})
	for _, test := range []struct{ path, accepted, coding, body string }{
		{"/", "gzip, deflate, br, zstd", "br", "br of index"},
		{"/", "gzip", "gzip", "gz of index"},
		{"/", "GZIP;q=0.5", "gzip", "gz of index"},
		{"/", "br;q=0, gzip;q=1", "gzip", "gz of index"},
		{"/", "br; q=0.000", "", "<html>"},
		{"/", "br;q=x", "", "<html>"},
		{"/", "brotli", "", "<html>"},
		{"/", "", "", "<html>"},
		{"/assets/shop-abc.js", "br", "br", "br of shop"},
		{"/assets/font-def.woff2", "br", "", "font"},
	} {
		t.Run(test.path+" "+test.accepted, func(t *testing.T) {
			resp, body := get(t, h, http.MethodGet, test.path, "Accept-Encoding", test.accepted)
			if got := resp.Header.Get("Content-Encoding"); got != test.coding || body != test.body {
				t.Errorf("%q in %q, want %q in %q", body, got, test.body, test.coding)
			}
			if got := resp.Header.Get("Vary"); (got == "Accept-Encoding") != !strings.HasSuffix(test.path, ".woff2") {
				t.Errorf("Vary is %q", got)
			}
		})
	}
}

func TestNotModified(t *testing.T) {
	h := newTestHandler(t, config{})
	first, _ := get(t, h, http.MethodGet, "/", "Accept-Encoding", "br")
	tag := first.Header.Get("ETag")
	if again, body := get(t, h, http.MethodGet, "/", "Accept-Encoding", "br", "If-None-Match",
		tag); again.StatusCode != http.StatusNotModified || body != "" {
		t.Errorf("unchanged: %d %q", again.StatusCode, body)
	}
	// Another encoding is another representation, and so another tag.
	if other, _ := get(t, h, http.MethodGet, "/", "Accept-Encoding", "gzip", "If-None-Match",
		tag); other.StatusCode != http.StatusOK {
		t.Errorf("in another encoding: %d", other.StatusCode)
	}
}

func TestOtherMethods(t *testing.T) {
	h := newTestHandler(t, config{})
	if resp, body := get(t, h, http.MethodHead, "/"); resp.StatusCode != http.StatusOK ||
		resp.Header.Get("Content-Length") != "6" {
		t.Errorf("HEAD: %d %q %q", resp.StatusCode, resp.Header, body)
	}
	if resp, _ := get(t, h, http.MethodPost, "/basket"); resp.StatusCode != http.StatusMethodNotAllowed ||
		resp.Header.Get("Allow") != "GET, HEAD" {
		t.Errorf("POST: %d, allowed %q", resp.StatusCode, resp.Header.Get("Allow"))
	}
}

func TestRuntimeConfig(t *testing.T) {
	for name, test := range map[string]struct {
		cfg  config
		want string
	}{
		"with Jaeger": {config{Jaeger: url.URL{Scheme: "https", Host: "jaeger.example", Path: "/ui/"}},
			`{"jaegerUrl":"https://jaeger.example/ui"}`},
		"without Jaeger": {config{}, `{"jaegerUrl":""}`},
	} {
		t.Run(name, func(t *testing.T) {
			resp, body := get(t, newTestHandler(t, test.cfg), http.MethodGet, "/config.json")
			if diff := cmp.Diff(test.want+"\n", body); diff != "" || resp.Header.Get("Cache-Control") != "no-cache" {
				t.Errorf("%s %v", diff, resp.Header)
			}
		})
	}
}

func TestValidate(t *testing.T) {
	for name, test := range map[string]struct {
		cfg config
		bad string
	}{
		"defaults":       {config{}, ""},
		"no scheme":      {config{Jaeger: url.URL{Path: "jaeger:16686"}}, "JAEGER_URL"},
		"another scheme": {config{Jaeger: url.URL{Scheme: "javascript", Opaque: "alert(1)"}}, "JAEGER_URL"},
		"no host":        {config{Jaeger: url.URL{Scheme: "http", Host: ":16686"}}, "JAEGER_URL"},
	} {
		t.Run(name, func(t *testing.T) {
			err := test.cfg.Validate()
			if (err == nil) != (test.bad == "") || err != nil && !strings.Contains(err.Error(), test.bad) {
				t.Errorf("%v, want one about %q", err, test.bad)
			}
		})
	}
}

func TestLoadRefuses(t *testing.T) {
	for name, test := range map[string]struct {
		files map[string]string
		want  string
	}{
		"nothing":         {map[string]string{}, "npm ci && npm run build"},
		"no index":        {map[string]string{"theme.js": ""}, "npm ci && npm run build"},
		"unknown type":    {map[string]string{"index.html": "", "movie.avi": ""}, "/movie.avi"},
		"only compressed": {map[string]string{"index.html": "", "lost.js.br": ""}, "/lost.js"},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := load(build(t, test.files)); err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("%v, want one with %q", err, test.want)
			}
		})
	}
	if _, err := load(filepath.Join(t.TempDir(), "missing")); err == nil || !strings.Contains(err.Error(), "npm ci") {
		t.Errorf("a missing folder: %v", err)
	}
}

func TestPagesMayTalkToTheIssuerAndNobodyElse(t *testing.T) {
	h := newTestHandler(t, config{Issuer: url.URL{Scheme: "https", Host: "id.example.com", Path: "/realms/shop"}})
	resp, _ := get(t, h, http.MethodGet, "/signed-in")
	if got := resp.Header.Get("Content-Security-Policy"); resp.StatusCode != http.StatusOK ||
		!strings.Contains(got, "connect-src 'self' https://id.example.com;") {
		t.Errorf("%d %s", resp.StatusCode, got)
	}
	wrong := config{Issuer: url.URL{Scheme: "javascript", Host: "x"}}
	if err := wrong.Validate(); err == nil || !strings.Contains(err.Error(), "AUTH_ISSUER") {
		t.Errorf("an issuer that is none: %v", err)
	}
}
