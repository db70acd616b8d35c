package bench

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"

	"orderflow.internal/hack/stack"
)

// Of tells what a run may know about a stack of this program's own.
func Of(s *stack.Stack) *Stack {
	known := &Stack{
		DatabaseURL:   s.Postgres.AdminURL(),
		AMQPURL:       s.Broker.AdminURL(),
		ManagementURL: s.Broker.ManagementURL(),
	}
	for _, unit := range s.Units() {
		known.Processes = append(known.Processes, Process{Name: unit.Name(), PIDs: func() []int { return pids(unit) }})
	}
	return known
}

func pids(unit stack.Unit) []int {
	if pid := unit.PID(); pid != 0 {
		return []int{pid}
	}
	return nil
}

// local returns the named stack of this repository if it runs and its gateway is at baseURL, else nil.
func local(name, baseURL string) (*Stack, error) {
	root, err := stack.FindRoot()
	if err != nil {
		return nil, err
	}
	s, err := stack.Open(root, name)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("local stack: %w", err)
	}
	if !s.Running() || !sameServer(s.BaseURL(), baseURL) {
		return nil, nil
	}
	known := Of(s)
	units := s.Units()
	for i := range units {
		known.Processes[i].PIDs = func() []int {
			if units[i].PID() == 0 {
				// Another program holds the stack: only its records, read again, tell of a successor.
				if again, err := stack.Open(root, name); err == nil && len(again.Units()) == len(units) {
					units = again.Units()
				}
			}
			return pids(units[i])
		}
	}
	return known, nil
}

func sameServer(a, b string) bool {
	first, errA := url.Parse(a)
	second, errB := url.Parse(b)
	return errA == nil && errB == nil && first.Port() == second.Port() && loopback(first.Hostname()) && loopback(second.Hostname())
}

func loopback(host string) bool {
	return host == "localhost" || net.ParseIP(host).IsLoopback()
}
