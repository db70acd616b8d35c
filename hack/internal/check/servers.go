package check

import (
	"context"
	"time"

	"orderflow.internal/hack/stack"
)

// servers is the stack that the parts share, started by the first that needs it.
type servers struct {
	run   *run
	stack *stack.Stack
}

func newServers(r *run) *servers { return &servers{run: r} }

func (s *servers) options() stack.Options {
	o := s.run.Broker
	o.Root, o.Name, o.Offset, o.Race = s.run.Root, "test", stack.OffsetTest, s.run.Race
	o.Step = s.run.out.Step
	o.Env = map[string]string{
		"OTEL_EXPORTER_OTLP_ENDPOINT": "http://" + stack.PortsAt(stack.OffsetTest).OTLPAddress(),
		"OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
		"OTEL_METRICS_EXPORTER":       "none",
		"OTEL_BSP_SCHEDULE_DELAY":     "200", // ms: a test waits for the spans
	}
	return o
}

// start starts fresh servers, or returns those that run.
func (s *servers) start(ctx context.Context) (*stack.Stack, error) {
	if s.stack != nil {
		return s.stack, nil
	}
	st, err := stack.New(s.options())
	if err != nil {
		return nil, err
	}
	s.stack = st
	if err := st.Stop(ctx); err != nil { // what a killed run left
		return nil, err
	}
	if err := st.Purge(ctx); err != nil {
		return nil, err
	}
	return st, st.StartServers(ctx, false)
}

func (s *servers) startServices(ctx context.Context) error {
	if err := s.run.out.Step(ctx, "build the services", s.stack.Build); err != nil {
		return err
	}
	return s.stack.StartServices(ctx)
}

// stop ends what runs; data and logs stay to be looked at until the next run.
func (s *servers) stop(ctx context.Context) error {
	if s.stack == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	if err := s.stack.Stop(ctx); err != nil {
		return err
	}
	return s.stack.Close()
}
