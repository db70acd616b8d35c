package stack

import (
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"orderflow.internal/hack/console"
)

// Nobody's server may stay forbidden to start because an installation was broken off.
func TestInstallLeavesNoPolicyBehind(t *testing.T) {
	const foreign = "#!/bin/sh\nexit 101\n"
	bin, policy := t.TempDir(), filepath.Join(t.TempDir(), "policy-rc.d")
	t.Setenv("PATH", bin+":"+os.Getenv("PATH"))
	install := func(aptGet string) error {
		if err := os.WriteFile(filepath.Join(bin, "apt-get"), []byte("#!/bin/sh\n"+aptGet+"\n"), 0o700); err != nil {
			t.Fatal(err)
		}
		return exec.CommandContext(t.Context(), "sh", "-c", installScript, "install", policy, "none-such").Run()
	}
	for _, signal := range []string{"INT", "TERM", "HUP"} {
		err := install("[ -x '" + policy + "' ] && kill -" + signal + " $PPID")
		if exit, ok := errors.AsType[*exec.ExitError](err); !ok || exit.ExitCode() != 130 {
			t.Errorf("%s: %v, want exit status 130", signal, err)
		}
		if _, err := os.Stat(policy); !os.IsNotExist(err) {
			t.Errorf("%s: %v, want that the policy is gone", signal, err)
		}
	}
	if err := install("kill -KILL $PPID"); err == nil {
		t.Fatal("no error after a kill")
	}
	if _, err := os.Stat(policy); err != nil {
		t.Fatal(err)
	}
	if err := install("exit 0"); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(policy); !os.IsNotExist(err) {
		t.Errorf("%v, want that the next installation takes away what a killed one has left", err)
	}
	if err := os.WriteFile(policy, []byte(foreign), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := install("exit 0"); err != nil {
		t.Error(err)
	}
	if text, err := os.ReadFile(policy); err != nil || string(text) != foreign {
		t.Errorf("%q, %v, want somebody else's policy as it was", text, err)
	}
}

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
