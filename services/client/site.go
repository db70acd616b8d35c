package main

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path"
	"strconv"
	"strings"

	"orderflow.internal/kit/web"
)

const (
	assets    = "/assets/" // named by their content
	indexName = "/index.html"
)

// site is the built client in memory, by path: a few hundred kB, and no
// request can reach any other file.
type site map[string]*file

// file is one file in its encodings.
type file struct {
	contentType string
	plain       variant
	compressed  map[string]variant // by content coding
}

type variant struct {
	body   []byte
	length string
	etag   string
}

// codings are the content codings by the suffix of their files, best first.
var codings = []struct{ name, suffix string }{{"br", ".br"}, {"gzip", ".gz"}}

// contentTypes does not lean on the tables of the system: a container has none.
var contentTypes = map[string]string{
	".css":         "text/css; charset=utf-8",
	".html":        "text/html; charset=utf-8",
	".ico":         "image/x-icon",
	".js":          "text/javascript; charset=utf-8",
	".json":        "application/json",
	".png":         "image/png",
	".svg":         "image/svg+xml",
	".txt":         "text/plain; charset=utf-8",
	".webmanifest": "application/manifest+json",
	".woff2":       "font/woff2",
}

// load reads the folder that npm run build has written. Hidden folders, such
// as the one of the build's manifest, are not part of the site.
func load(dir string) (site, error) {
	pages := make(site)
	root := os.DirFS(dir)
	err := fs.WalkDir(root, ".", func(name string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case entry.IsDir() && name != "." && strings.HasPrefix(entry.Name(), "."):
			return fs.SkipDir
		case entry.IsDir():
			return nil
		}
		body, err := fs.ReadFile(root, name)
		if err != nil {
			return err
		}
		return pages.add("/"+name, body)
	})
	if err == nil && pages[indexName] == nil {
		err = fmt.Errorf("%s: %w", indexName, fs.ErrNotExist)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("CLIENT_DIR=%s has no built client: run npm ci && npm run build in services/client: %w",
			dir, err)
	}
	for name, f := range pages {
		if f.contentType == "" {
			err = errors.Join(err, fmt.Errorf("%s exists only in its compressed form", name))
		}
	}
	if err != nil {
		return nil, fmt.Errorf("CLIENT_DIR=%s: %w", dir, err)
	}
	return pages, nil
}

func (s site) add(name string, body []byte) error {
	sum := sha256.Sum256(body)
	v := variant{body: body, length: strconv.Itoa(len(body)), etag: `"` + hex.EncodeToString(sum[:12]) + `"`}
	for _, coding := range codings {
		if plain, ok := strings.CutSuffix(name, coding.suffix); ok {
			s.at(plain).compressed[coding.name] = v
			return nil
		}
	}
	contentType, ok := contentTypes[path.Ext(name)]
	if !ok {
		return fmt.Errorf("%s: no content type is known for it", name)
	}
	f := s.at(name)
	f.contentType, f.plain = contentType, v
	return nil
}

// at returns the file of that name, which may not have its plain form yet.
func (s site) at(name string) *file {
	if s[name] == nil {
		s[name] = &file{compressed: make(map[string]variant)}
	}
	return s[name]
}

// index returns a handler that answers with the page that starts the client.
func (s site) index(status int) http.HandlerFunc {
	page := s[indexName]
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "no-cache")
		page.send(w, r, status)
	}
}

// file answers with the file at the request's path.
func (s site) file(w http.ResponseWriter, r *http.Request) {
	f := s[r.URL.Path]
	if f == nil {
		web.NotFound("There is nothing at " + r.URL.Path + ".").Write(w)
		return
	}
	cache := "no-cache"
	if strings.HasPrefix(r.URL.Path, assets) {
		cache = "public, max-age=31536000, immutable"
	}
	w.Header().Set("Cache-Control", cache)
	f.send(w, r, http.StatusOK)
}

func (f *file) send(w http.ResponseWriter, r *http.Request, status int) {
	h := w.Header()
	body := f.plain
	if len(f.compressed) > 0 {
		h.Set("Vary", "Accept-Encoding")
		accepted := strings.Join(r.Header.Values("Accept-Encoding"), ",")
		for _, coding := range codings {
			if compressed, ok := f.compressed[coding.name]; ok && accepts(accepted, coding.name) {
				h.Set("Content-Encoding", coding.name)
				body = compressed
				break
			}
		}
	}
	h.Set("ETag", body.etag)
	if status == http.StatusOK && strings.Contains(r.Header.Get("If-None-Match"), body.etag) {
		h.Del("Content-Encoding")
		w.WriteHeader(http.StatusNotModified)
		return
	}
	h.Set("Content-Type", f.contentType)
	h.Set("Content-Length", body.length)
	w.WriteHeader(status)
	_, _ = w.Write(body.body) // a client that is gone needs no answer
}

// accepts tells whether an Accept-Encoding header names the coding and does not
// refuse it with a weight of zero (RFC 9110, section 12.5.3).
func accepts(header, coding string) bool {
	for part := range strings.SplitSeq(header, ",") {
		name, weight, weighted := strings.Cut(part, ";")
		if !strings.EqualFold(strings.TrimSpace(name), coding) {
			continue
		}
		if !weighted {
			return true
		}
		_, q, _ := strings.Cut(weight, "=")
		value, err := strconv.ParseFloat(strings.TrimSpace(q), 64)
		return err == nil && value > 0
	}
	return false
}
