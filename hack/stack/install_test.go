package stack

import (
	"io"
	"strings"
	"testing"

	"orderflow.internal/hack/console"
)

func TestInstallSaysWhatToDoWithoutAptGet(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	for packages, want := range map[string]string{
		"nodejs": "not installed: nodejs; there is no apt-get here: " +
			"install them with this system's package manager",
		"postgresql rabbitmq-server": "docker compose up",
	} {
		err := Install(t.Context(), console.New(io.Discard), strings.Fields(packages)...)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: error %v, want one with %q", packages, err, want)
		}
	}
}
