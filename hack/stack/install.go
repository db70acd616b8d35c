package stack

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"orderflow.internal/hack/console"
)

const rabbitmqBin = "/usr/lib/rabbitmq/bin"

// postgresBin returns the folder of the newest installed PostgreSQL server.
func postgresBin() (string, error) {
	servers, err := filepath.Glob("/usr/lib/postgresql/*/bin/postgres")
	if err != nil {
		return "", err
	}
	if len(servers) == 0 {
		return "", missing(errors.New("no /usr/lib/postgresql/*/bin/postgres"))
	}
	newest := slices.MaxFunc(servers, func(a, b string) int { return majorOf(a) - majorOf(b) })
	return filepath.Dir(newest), nil
}

func majorOf(server string) int {
	major, _ := strconv.Atoi(filepath.Base(filepath.Dir(filepath.Dir(server)))) // 0 sorts before every real one
	return major
}

func postgresVersion() string {
	bin, err := postgresBin()
	if err != nil {
		return ""
	}
	return filepath.Base(filepath.Dir(bin))
}

func missing(err error) error {
	return fmt.Errorf("%w: install it with: sudo apt-get install %s", err, strings.Join(debianPackages, " "))
}

var debianPackages = []string{"postgresql", "rabbitmq-server"}

// Missing returns the Debian packages that this stack needs and the machine lacks.
func (o Options) Missing() []string {
	var packages []string
	if _, err := postgresBin(); err != nil {
		packages = append(packages, "postgresql")
	}
	if _, err := os.Stat(filepath.Join(rabbitmqBin, "rabbitmq-server")); o.RabbitMQImage == "" && err != nil {
		packages = append(packages, "rabbitmq-server")
	}
	return packages
}

// Install installs Debian packages, if any, after saying so, as root or with sudo. Their own services are neither
// started nor enabled: the stack runs instances of its own.
func Install(ctx context.Context, c *console.Console, packages ...string) error {
	if len(packages) == 0 {
		return nil
	}
	what := strings.Join(packages, " ")
	if _, err := exec.LookPath("apt-get"); err != nil {
		return withoutAptGet(packages)
	}
	c.Printf("Missing on this machine: %s. Installing with apt-get (their own services are not started).", what)
	command := []string{"sh", "-c", installScript, "install", "/usr/sbin/policy-rc.d"}
	if os.Geteuid() != 0 {
		command = append([]string{"sudo"}, command...)
	}
	cmd := exec.CommandContext(ctx, command[0], append(command[1:], packages...)...)
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) } // the script has something to put back
	cmd.WaitDelay = time.Minute                                              // for apt-get to end what it is at
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, c, c                       // sudo may ask for a password
	err := c.Step(ctx, "install "+what, func(context.Context) error { return cmd.Run() })
	if err != nil {
		return fmt.Errorf("%w: as root, apt-get install %s", err, what)
	}
	return nil
}

// withoutAptGet says what to do on a system that has other packages than Debian's.
func withoutAptGet(packages []string) error {
	what := strings.Join(packages, ", ")
	if slices.ContainsFunc(packages, func(p string) bool { return slices.Contains(debianPackages, p) }) {
		return fmt.Errorf("not installed: %s; servers are only found where Debian's packages put them, and there is no "+
			"apt-get here: docker compose up runs the same system and needs only Docker", what)
	}
	return fmt.Errorf("not installed: %s; there is no apt-get here: install them with this system's package manager", what)
}

// A policy-rc.d that answers 101 is Debian's way to install a server without starting it. One that a killed run has
// left is known by its second line.
const installScript = `set -eu
policy=$1
shift
mark='# Orderflow installs packages: deleted at the end'
trap 'exit 130' INT TERM HUP
if [ ! -e "$policy" ] || grep -qxF "$mark" "$policy"; then
  trap 'rm -f "$policy"' EXIT
  printf '#!/bin/sh\n%s\nexit 101\n' "$mark" >"$policy"
  chmod 755 "$policy"
fi
export DEBIAN_FRONTEND=noninteractive
apt="apt-get -q -o DPkg::Lock::Timeout=600"
$apt update
$apt install -y --no-install-recommends "$@"
if [ -d /run/systemd/system ]; then
  for package in "$@"; do
    if systemctl cat "$package.service" >/dev/null 2>&1; then systemctl disable --quiet "$package.service"; fi
  done
fi
`
