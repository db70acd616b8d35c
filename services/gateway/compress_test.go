package main

import (
	"compress/gzip"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

func TestCompression(t *testing.T) {
	large := `{"products":["` + strings.Repeat("Espresso cup", 2000) + `"]}`
	f := newFixture(t, false)
	f.serve(func(w http.ResponseWriter, r *http.Request) {
		body := large
		switch r.URL.Path {
		case "/api/products/small":
			body = `{}`
		case "/api/products/text":
			w.Header().Set("Content-Type", "text/plain")
		}
		if w.Header().Get("Content-Type") == "" {
			w.Header().Set("Content-Type", "application/json")
		}
		_, _ = io.WriteString(w, body)
	})
	for _, test := range []struct {
		name, method, path, accept string
		want                       string // Content-Encoding
	}{
		{"a list", "GET", "/products", "gzip", "gzip"},
		{"a list for a browser", "GET", "/orders", "gzip, deflate, br, zstd", "gzip"},
		{"for a client that does not accept it", "GET", "/products", "", ""},
		{"for one that refuses it", "GET", "/products", "gzip;q=0, br", ""},
		{"what is small", "GET", "/products/small", "gzip", ""},
		{"what is no JSON", "GET", "/products/text", "gzip", ""},
		{"what was not read", "POST", "/products", "gzip", ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			req, err := http.NewRequestWithContext(t.Context(), test.method, f.door.URL+test.path, nil)
			if err != nil {
				t.Fatal(err)
			}
			req.Header.Set("Accept-Encoding", test.accept) // also keeps net/http from decoding
			resp, err := f.door.Client().Do(req)
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			if got := resp.Header.Get("Content-Encoding"); got != test.want {
				t.Fatalf("Content-Encoding is %q, want %q", got, test.want)
			}
			if test.want == "" {
				return
			}
			unzipped, err := gzip.NewReader(resp.Body)
			if err != nil {
				t.Fatal(err)
			}
			if body, err := io.ReadAll(unzipped); err != nil || string(body) != large {
				t.Errorf("%d bytes, %v", len(body), err)
			}
			if got := resp.Header.Get("Vary"); got != "Accept-Encoding" {
				t.Errorf("Vary is %q", got)
			}
		})
	}
}

// Compressors hold memory for as long as clients take to read.
func TestCompressionIsBounded(t *testing.T) {
	arrived, release := make(chan struct{}), make(chan struct{})
	large := strings.Repeat("x", 2*minCompressed)
	handler := compress(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/held" {
			arrived <- struct{}{}
			<-release
		}
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, large)
	}), make(chan struct{}, 1))
	encoding := func(path string) string {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, path, nil)
		if err != nil {
			t.Error(err)
		}
		r.Header.Set("Accept-Encoding", "gzip")
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, r)
		return w.Header().Get("Content-Encoding")
	}
	held := make(chan string)
	go func() { held <- encoding("/held") }()
	<-arrived
	if got := encoding("/"); got != "" {
		t.Errorf("one too many is %q, want it as it is", got)
	}
	close(release)
	if got := <-held; got != "gzip" {
		t.Errorf("the first is %q", got)
	}
	if got := encoding("/"); got != "gzip" {
		t.Errorf("the next is %q: the place was not given back", got)
	}
}
