package run

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

type Shared struct {
	Size int `env:"SIZE" envDefault:"8" help:"how many"`
}

func (s Shared) Validate() error {
	if s.Size < 1 {
		return fmt.Errorf("SIZE=%d: must be positive", s.Size)
	}
	return nil
}

type testConfig struct {
	Shared // lends its Validate, which must not be asked twice
	Pool   poolConfig
	Name   string        `env:"NAME" help:"of the thing"`
	Token  int           `env:"TOKEN" secret:"true" help:"a secret number"`
	Wait   time.Duration `env:"WAIT" envDefault:"2s"`
}

type poolConfig struct {
	Low  int `env:"LOW" envDefault:"1"`
	High int `env:"HIGH" envDefault:"2"`
}

func (c *poolConfig) Validate() error {
	var errs []error
	if c.Low > c.High {
		errs = append(errs, fmt.Errorf("LOW=%d: must not be above HIGH", c.Low))
	}
	if c.High > 100 {
		errs = append(errs, fmt.Errorf("HIGH=%d: must be at most 100", c.High))
	}
	return errors.Join(errs...)
}

func TestLoad(t *testing.T) {
	got, err := load[testConfig](
		map[string]string{"NAME": "x", "SIZE": "", "HIGH": "5"},
		map[string]string{"SIZE": "3", "HIGH": "4"})
	want := testConfig{Shared: Shared{Size: 3}, Pool: poolConfig{Low: 1, High: 5}, Name: "x", Wait: 2 * time.Second}
	if diff := cmp.Diff(want, got); err != nil || diff != "" {
		t.Errorf("%v (-want +got)\n%s", err, diff)
	}
}

func TestLoadReadsTheEnvironment(t *testing.T) {
	t.Setenv("SIZE", "7")
	if got, err := Load[Shared](); err != nil || got.Size != 7 {
		t.Errorf("%+v %v", got, err)
	}
}

func TestLoadTellsEverythingThatIsWrong(t *testing.T) {
	tests := map[string]struct {
		environ map[string]string
		want    string
	}{
		"rules, each once": {
			map[string]string{"SIZE": "0", "LOW": "201", "HIGH": "200"},
			"SIZE=0: must be positive\nLOW=201: must not be above HIGH\nHIGH=200: must be at most 100",
		},
		"wrong types and rules together": {
			map[string]string{"WAIT": "soon", "HIGH": "x", "SIZE": "-1"},
			"HIGH=\"x\": strconv.ParseInt: parsing \"x\": invalid syntax\n" +
				"WAIT=\"soon\": unable to parse duration: time: invalid duration \"soon\"\n" +
				"SIZE=-1: must be positive",
		},
		"a secret is not repeated": {
			map[string]string{"TOKEN": "hunter2"},
			"TOKEN: is not a valid int",
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			_, err := load[testConfig](test.environ, nil)
			if err == nil {
				t.Fatal("no error")
			}
			if diff := cmp.Diff(test.want, err.Error()); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
		})
	}
}

func TestLoadOfARequiredVariable(t *testing.T) {
	type config struct {
		URL  string `env:"URL,required"`
		Size int    `env:"SIZE"`
	}
	_, err := load[config](map[string]string{"URL": "", "SIZE": "x"}, nil)
	if err == nil || !strings.Contains(err.Error(), "URL: must be set") || !strings.Contains(err.Error(), `SIZE="x": `) {
		t.Errorf("%v", err)
	}
}

func TestHelp(t *testing.T) {
	program := Program[testConfig]{
		Name: "widgets", Summary: "makes widgets", Defaults: map[string]string{"SIZE": "9"},
	}
	got := program.help()
	for _, want := range []string{
		"widgets makes widgets.\n",
		"  SIZE                         how many (default 9)\n",
		"  NAME                         of the thing\n",
		"  WAIT                         (default 2s)\n",
		"  LOG_LEVEL ",
		"  OTEL_EXPORTER_OTLP_ENDPOINT ",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in\n%s", want, got)
		}
	}
	if strings.Contains(got, "migrate") {
		t.Error("help names a command that there is not")
	}
}
