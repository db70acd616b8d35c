package postgres

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"orderflow.internal/kit/run"
)

const (
	// probeInterval is how often Health asks, and probeLimit how long it waits for
	// the answer: one probe that fails leaves time for another before that counts.
	// Connecting has the limits of a pool's connection, so that a server that is
	// listed after a silent one has its turn.
	probeInterval = time.Second
	probeLimit    = 2 * time.Second
	// hiccup is how long the database may fail to answer before that counts.
	hiccup = 5 * time.Second
)

// Health knows whether the database answers. It asks on a connection of its
// own: a pool that is in use to the last connection is not an absent database.
type Health struct {
	pool *pgxpool.Pool
	conn *pgx.Conn // of the probe, nil when there is none

	mu       sync.Mutex
	answered time.Time // last
	failure  error     // of the last probe, nil when it succeeded
}

// NewHealth returns the health of the pool's database, not ready until Run has
// reached it.
func NewHealth(pool *pgxpool.Pool) *Health {
	return &Health{pool: pool, failure: errors.New("not reached yet")}
}

// Run is a [run.Loop] that asks the database every second.
func (h *Health) Run(ctx context.Context) error {
	defer h.hangUp()
	return run.Every(ctx, run.Job{Name: "database health", Interval: probeInterval, Timeout: limit,
		Do: func(ctx context.Context) error {
			err := h.probe(ctx)
			if !errors.Is(err, context.Canceled) {
				h.note(err)
			}
			return err
		}})
}

func (h *Health) note(err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.failure = err
	if err == nil {
		h.answered = time.Now()
	}
}

// Ready answers from memory: an error when the database has not answered for 5
// seconds. The error does not hold the driver's, which names hosts; the log has
// it.
func (h *Health) Ready(context.Context) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	silent := time.Since(h.answered)
	switch {
	case h.answered.IsZero():
		return fmt.Errorf("the database has not answered yet (%s)", Classify(h.failure))
	case silent > hiccup:
		return fmt.Errorf("the database has not answered for %s (%s)", silent.Round(time.Second), Classify(h.failure))
	}
	return nil
}

func (h *Health) probe(ctx context.Context) error {
	if h.conn == nil {
		cfg := h.pool.Config()
		if cfg.BeforeConnect != nil {
			if err := cfg.BeforeConnect(ctx, cfg.ConnConfig); err != nil {
				return err
			}
		}
		conn, err := pgx.ConnectConfig(ctx, cfg.ConnConfig)
		if err != nil {
			return err
		}
		h.conn = conn
	}
	ctx, cancel := context.WithTimeout(ctx, probeLimit)
	defer cancel()
	// Not conn.Ping, which a pooler answers by itself when it has no server.
	if _, err := h.conn.Exec(ctx, "select"); err != nil {
		h.hangUp()
		// Those of the pool that are as silent would each be tried first.
		h.pool.Reset()
		return err
	}
	return nil
}

func (h *Health) hangUp() {
	if h.conn == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_ = h.conn.Close(ctx) // what is left of it is of no use
	h.conn = nil
}
