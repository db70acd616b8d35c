package systemtest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"golang.org/x/sync/errgroup"

	"orderflow.internal/hack/stack"
)

// skewVariable is by how many seconds the clock of a program from skewed is ahead.
const skewVariable = "ORDERFLOW_TEST_CLOCK_SKEW"

// skewed builds services whose clock can be set wrong. The services know nothing of it: Go's own time.Now is another
// one (go help build, -overlay). What is measured by the monotonic clock, as time-outs are, stays right.
func skewed(t testing.TB, s *stack.Stack, names ...string) map[string]string {
	t.Helper()
	root, err := exec.CommandContext(t.Context(), "go", "env", "GOROOT").Output()
	if err != nil {
		t.Fatal(err)
	}
	source := filepath.Join(strings.TrimSpace(string(root)), "src", "time", "time.go")
	text, err := os.ReadFile(source)
	if err != nil {
		t.Fatal(err)
	}
	const call = "func Now() Time {\n\tsec, nsec, mono := runtimeNow()\n"
	if strings.Count(string(text), call) != 1 {
		t.Fatalf("%s: time.Now is not what it was: this test has to follow", source)
	}
	dir := t.TempDir()
	files := map[string]string{
		source: strings.Replace(string(text), call, call+"\tsec += skew\n", 1),
		filepath.Join(filepath.Dir(source), "skew.go"): fmt.Sprintf(`package time

import "syscall"

var skew = func() int64 {
	text, _ := syscall.Getenv(%q)
	if text == "" {
		return 0
	}
	sign := int64(1)
	if text[0] == '-' {
		sign, text = -1, text[1:]
	}
	seconds, err := atoi(text)
	if err != nil {
		panic(err)
	}
	return sign * int64(seconds)
}()
`, skewVariable),
	}
	replace := make(map[string]string)
	for path, text := range files {
		replace[path] = filepath.Join(dir, filepath.Base(path))
		if err := os.WriteFile(replace[path], []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	overlay, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		t.Fatal(err)
	}
	list := filepath.Join(dir, "overlay.json")
	if err := os.WriteFile(list, overlay, 0o600); err != nil {
		t.Fatal(err)
	}
	programs := make(map[string]string)
	args := append([]string{"build", "-overlay", list, "-o", dir + "/"}, stack.BuildFlags()...)
	for _, name := range names {
		programs[name] = filepath.Join(dir, name)
		args = append(args, "./"+name)
	}
	cmd := exec.CommandContext(t.Context(), "go", args...)
	cmd.Dir = filepath.Join(s.Options.Root, "services")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	return programs
}

// Three of four replicas of orders and products have a wrong clock, each its own, and make ids accordingly. Nobody
// notices: no order times out before its deadline or long after it, and what killed replicas leave in their outboxes is
// published.
func TestClocks(t *testing.T) {
	const deadline = 15 * time.Second
	skews := []time.Duration{45 * time.Second, time.Hour, -time.Hour}
	s := system(t)
	programs := skewed(t, s, "orders", "products")
	v := variant{instances: 1 + len(skews),
		only: map[string]map[string]string{"orders": {"ORDER_DEADLINE": deadline.String()}}}
	wrong := make(map[*stack.Service]time.Duration)
	for name, program := range programs {
		for i, skew := range skews {
			service := s.Instance(name, i+2)
			service.Setprogram(program)
			service.Setenv(skewVariable, strconv.Itoa(int(skew/time.Second)))
			t.Cleanup(func() { service.Setprogram("") })
			wrong[service] = skew
		}
	}
	start(t, v)
	load := steady(s, 100, 6*time.Second)
	r := during(t.Context(), t, load, func(time.Time) {
		var restarting errgroup.Group
		for service := range wrong {
			restarting.Go(func() error {
				return errors.Join(service.Kill(t.Context()), service.Start(t.Context()))
			})
		}
		if err := restarting.Wait(); err != nil {
			t.Error(err)
		}
	})
	promised(t, r, load.Orders, false)
	for service, skew := range wrong {
		showsClock(t, service, skew)
	}
	timesOut(t, s, v.instances, deadline)
}

// showsClock makes sure that the service's clock is really wrong.
func showsClock(t testing.TB, service *stack.Service, skew time.Duration) {
	t.Helper()
	text, err := newLog(service, 0)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(text), "\n")
	var last logLine
	if err := json.Unmarshal([]byte(lines[len(lines)-1]), &last); err != nil {
		t.Fatal(err)
	}
	file, err := os.Stat(service.Log())
	if err != nil {
		t.Fatal(err)
	}
	if off := last.Time.Sub(file.ModTime()) - skew; off < -time.Minute/2 || off > time.Minute/2 {
		t.Errorf("%s logged at %s: its clock is not %s ahead", service.Name(), last.Time, skew)
	}
}

// timesOut places orders at each replica that get no answer and checks by the database's clock when they end.
func timesOut(t testing.TB, s *stack.Stack, instances int, deadline time.Duration) {
	t.Helper()
	atOnce(t, s, "products", instances, (*stack.Service).Stop)
	var ids []uuid.UUID
	for i := 1; i <= instances; i++ {
		door := newDoor(s.Instance("orders", i).URL()+"/api", 1)
		for range 5 {
			var o orderState
			body := map[string]any{"customerId": uuid.New(), "productId": uuid.New(), "quantity": 1}
			if err := door.call(t.Context(), "/orders", http.Header{"Prefer": {"respond-async"}}, body, &o,
				http.StatusAccepted); err != nil {
				t.Fatal(err)
			}
			ids = append(ids, o.OrderID)
		}
		door.close()
	}
	eventually(t, 2*deadline+10*time.Second, "the orders end", func(context.Context) error {
		left := query[struct{ Count int }](t, s.Postgres.ServiceURL("orders"), `
select count(*)::int
from orders
where order_id = any($1)
  and status = 'Pending'`, ids)
		if left[0].Count > 0 {
			return fmt.Errorf("%d are Pending", left[0].Count)
		}
		return nil
	})
	for _, o := range query[struct {
		Reason  string
		Seconds float64
	}](t, s.Postgres.ServiceURL("orders"), `
select coalesce(reason, ''), extract(epoch from updated_at - created_at)::float8
from orders
where order_id = any($1)`, ids) {
		lived := time.Duration(o.Seconds * float64(time.Second))
		// created_at is by the service's estimate of the database's clock, which may be some milliseconds off.
		if o.Reason != "TimedOut" || lived < deadline-100*time.Millisecond || lived > deadline+4*time.Second {
			t.Errorf("an order ended %s after %s, its deadline is %s", o.Reason, lived, deadline)
		}
	}
	atOnce(t, s, "products", instances, (*stack.Service).Start)
}

// atOnce does the same to all instances of a service.
func atOnce(t testing.TB, s *stack.Stack, name string, instances int, do func(*stack.Service, context.Context) error) {
	t.Helper()
	var doing errgroup.Group
	for i := 1; i <= instances; i++ {
		doing.Go(func() error { return do(s.Instance(name, i), t.Context()) })
	}
	if err := doing.Wait(); err != nil {
		t.Fatal(err)
	}
}
