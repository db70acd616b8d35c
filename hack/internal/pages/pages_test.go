package pages

import (
	"os"
	"path/filepath"
	"testing"
	"time"
)

func TestStale(t *testing.T) {
	root := t.TempDir()
	age := 0
	// each file is a minute newer than the one before
	touch := func(name string) {
		t.Helper()
		path := filepath.Join(Sources(root), name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		age++
		at := time.Now().Add(time.Duration(age) * time.Minute)
		if err := os.Chtimes(path, at, at); err != nil {
			t.Fatal(err)
		}
	}
	check := func(when string, want bool) {
		t.Helper()
		got, err := stale(root)
		if err != nil {
			t.Fatal(err)
		}
		if got != want {
			t.Errorf("%s: stale is %t", when, got)
		}
	}
	for _, name := range []string{
		"index.html", "package-lock.json", "package.json", "public/icon.svg", "src/main.tsx", "vite.config.ts",
	} {
		touch(name)
	}
	check("never built", true)
	touch("dist/index.html")
	check("just built", false)
	touch("e2e/order.spec.ts")
	touch("README.md")
	check("after a change that no browser sees", false)
	touch("src/pages/order.tsx")
	check("after a change", true)
}
