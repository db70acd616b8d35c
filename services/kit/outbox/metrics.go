package outbox

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5/pgxpool"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/metric"
)

type gauges struct {
	depth metric.Int64Gauge
	age   metric.Float64Gauge
}

func newGauges() gauges {
	m := otel.Meter("orderflow.internal/kit/outbox")
	depth, err := m.Int64Gauge("orderflow.outbox.depth", metric.WithUnit("{event}"), metric.WithDescription("Events in the outbox, those on their way included."))
	if err != nil {
		otel.Handle(err)
	}
	age, err := m.Float64Gauge("orderflow.outbox.age", metric.WithUnit("s"), metric.WithDescription("Age of the oldest event in the outbox, 0 when it is empty."))
	if err != nil {
		otel.Handle(err)
	}
	return gauges{depth, age}
}

func (g gauges) measure(ctx context.Context, pool *pgxpool.Pool) error {
	var depth int64
	var age float64
	err := pool.QueryRow(ctx, `
select count(*),
       coalesce(extract(epoch from now() - min(created_at)), 0)::float8
from outbox`).Scan(&depth, &age)
	if err != nil {
		return fmt.Errorf("measure outbox: %w", err)
	}
	g.depth.Record(ctx, depth)
	g.age.Record(ctx, max(0, age))
	return nil
}
