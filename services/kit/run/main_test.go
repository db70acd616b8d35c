package run

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"go.opentelemetry.io/otel"
	"go.uber.org/goleak"
)

// TestMain is also the program under test: started with RUN_TEST_PROGRAM set,
// the test binary is a service.
func TestMain(m *testing.M) {
	if os.Getenv("RUN_TEST_PROGRAM") != "" {
		Main(testProgram())
	}
	goleak.VerifyTestMain(m)
}

type programConfig struct {
	Mode string `env:"MODE" envDefault:"wait" help:"what to do"`
	Size int    `env:"SIZE" envDefault:"1"`
}

// early is made before telemetry is set up, as packages make their metrics.
var early, _ = otel.Meter("test").Int64Counter("early")

func testProgram() Program[programConfig] {
	return Program[programConfig]{
		Name:    "tester",
		Summary: "is started by its own test",
		Serve: func(ctx context.Context, info Info, cfg programConfig) error {
			if info.Name != "tester" || info.Version == "" || info.Metrics == nil {
				return errors.New("incomplete info")
			}
			switch cfg.Mode {
			case "fail":
				return errors.New("broken")
			case "metrics":
				early.Add(ctx, 7)
				w := httptest.NewRecorder()
				info.Metrics.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
				_, err := io.Copy(os.Stdout, w.Body)
				return err
			case "hang":
				<-ctx.Done()
				select {} // only a second signal helps
			}
			<-ctx.Done()
			return nil
		},
		Migrate: func(_ context.Context, cfg programConfig) error {
			if cfg.Mode == "fail" {
				return errors.New("no such table")
			}
			return nil
		},
		Commands: []Command[programConfig]{{
			Name:    "repeat",
			Summary: "say what comes in",
			Help:    "Usage: tester repeat WORD\n",
			Run: func(_ context.Context, call Call, cfg programConfig) error {
				if len(call.Args) != 1 {
					return fmt.Errorf("%w: one word", ErrUsage)
				}
				if cfg.Mode == "fail" {
					return errors.New("speechless")
				}
				in, err := io.ReadAll(call.Stdin)
				fmt.Fprintf(call.Stdout, "%s %s %d", call.Args[0], in, cfg.Size)
				return err
			},
		}},
	}
}

func program(t *testing.T, environ []string, args ...string) (*exec.Cmd, *bytes.Buffer) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0], args...)
	cmd.Env = append([]string{"RUN_TEST_PROGRAM=1"}, environ...)
	var out bytes.Buffer
	cmd.Stdout = &out
	return cmd, &out
}

func TestExitCodes(t *testing.T) {
	tests := map[string]struct {
		args, environ  []string
		code           int
		stdout, stderr string // contained
	}{
		"help":             {[]string{"--help"}, nil, 0, "tester is started by its own test.", ""},
		"help while wrong": {[]string{"--help"}, []string{"SIZE=x"}, 0, "MODE ", ""},
		"version":          {[]string{"--version"}, nil, 0, "tester ", ""},
		"migrate":          {[]string{"migrate"}, nil, 0, "", `"msg":"migrated"`},
		"migrate fails":    {[]string{"migrate"}, []string{"MODE=fail"}, 1, "", `"error":"no such table"`},
		"command":          {[]string{"repeat", "hello"}, []string{"SIZE=3"}, 0, "hello  3", ""},
		"command's help":   {[]string{"repeat", "--help"}, []string{"SIZE=x"}, 0, "Usage: tester repeat WORD\n", ""},
		"misused command": {[]string{"repeat"}, nil, 2, "",
			"tester: wrong arguments: one word\nTry 'tester repeat --help'."},
		"command fails":    {[]string{"repeat", "hello"}, []string{"MODE=fail"}, 1, "", `"error":"speechless"`},
		"help of commands": {[]string{"--help"}, nil, 0, "tester repeat   say what comes in", ""},
		"unknown argument": {[]string{"serve"}, nil, 2, "", `tester: unknown command "serve"`},
		"two arguments":    {[]string{"migrate", "now"}, nil, 2, "", "takes one argument, not 2"},
		"wrong config": {nil, []string{"SIZE=x", "LOG_FORMAT=xml"}, 2, "",
			"  LOG_FORMAT=\"xml\": is none of auto, text, json\n  SIZE=\"x\": "},
		"wrong telemetry": {nil, []string{"OTEL_TRACES_EXPORTER=pigeon"}, 2, "", `OTEL_TRACES_EXPORTER="pigeon"`},
		"metrics":         {nil, []string{"MODE=metrics"}, 0, "\nearly_total{service_name=\"tester\"} 7\n", ""},
		"failure": {nil, []string{"MODE=fail"}, 1, "",
			`"level":"ERROR","msg":"failed","service":"tester","error":"broken"`},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cmd, stdout := program(t, test.environ, test.args...)
			var stderr bytes.Buffer
			cmd.Stderr = &stderr
			err := cmd.Run()
			var exit *exec.ExitError
			if err != nil && !errors.As(err, &exit) {
				t.Fatal(err)
			}
			if code := cmd.ProcessState.ExitCode(); code != test.code {
				t.Errorf("exit code %d", code)
			}
			if !strings.Contains(stdout.String(), test.stdout) || !strings.Contains(stderr.String(), test.stderr) {
				t.Errorf("stdout %q\nstderr %q", stdout, stderr.String())
			}
		})
	}
}

func TestSignals(t *testing.T) {
	tests := map[string]struct {
		mode    string
		signals []syscall.Signal
		code    int
	}{
		"SIGTERM":        {"wait", []syscall.Signal{syscall.SIGTERM}, 0},
		"SIGINT":         {"wait", []syscall.Signal{syscall.SIGINT}, 0},
		"second SIGTERM": {"hang", []syscall.Signal{syscall.SIGTERM, syscall.SIGTERM}, 143},
		"second SIGINT":  {"hang", []syscall.Signal{syscall.SIGTERM, syscall.SIGINT}, 130},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cmd, _ := program(t, []string{"MODE=" + test.mode})
			stderr, err := cmd.StderrPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			lines := bufio.NewScanner(stderr)
			for i, message := range []string{"starting", "stopping"}[:len(test.signals)] {
				for lines.Scan() && !strings.Contains(lines.Text(), `"msg":"`+message) {
				}
				if err := cmd.Process.Signal(test.signals[i]); err != nil {
					t.Fatal(err)
				}
			}
			rest, _ := io.ReadAll(stderr)
			_ = cmd.Wait()
			if code := cmd.ProcessState.ExitCode(); code != test.code {
				t.Errorf("exit code %d\n%s", code, rest)
			}
		})
	}
}
