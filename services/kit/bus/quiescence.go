package bus

import "time"

// quiescence is how a consumer that stops finds the moment to cancel itself, at
// which no message is on its way to it: one that crosses the cancel is given
// back, and before RabbitMQ 4.3 that counts as a failed delivery. So it keeps
// handling what comes but keeps its acknowledgements, until the prefetch window
// is full and the broker sends no more, or nothing has come for quietTime, or
// quiescePatience is over.
type quiescence struct {
	timer    *time.Timer // nil unless it is under way
	patience time.Time
}

const (
	quietTime       = 500 * time.Millisecond
	quiescePatience = 2500 * time.Millisecond
)

// begin starts it; it has to leave most of limit's last third to settle.
func (q *quiescence) begin(limit time.Duration) {
	q.patience = time.Now().Add(min(quiescePatience, limit*2/3))
	q.timer = time.NewTimer(0)
	q.heard()
}

// heard notes that something has come.
func (q *quiescence) heard() {
	if q.timer != nil {
		q.timer.Reset(max(0, min(quietTime, time.Until(q.patience))))
	}
}

// over receives when it is time to cancel.
func (q *quiescence) over() <-chan time.Time {
	if q.timer == nil {
		return nil
	}
	return q.timer.C
}

// underWay says that acknowledgements are kept.
func (q *quiescence) underWay() bool { return q.timer != nil }

func (q *quiescence) end() {
	q.timer.Stop()
	q.timer = nil
}
