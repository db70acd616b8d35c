package books

import (
	"context"
	"encoding/json"
	"errors"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"

	"orderflow.internal/audit/internal/ask"
	"orderflow.internal/events"
	"orderflow.internal/events/books"
	"orderflow.internal/kit/audit"
)

// read asks all services about the orders and calls do with each.
func (a *Audit) read(ctx context.Context, ids []uuid.UUID, do func(e entry, at time.Time)) error {
	for chunk := range slices.Chunk(ids, audit.MaxEntries) {
		entries := make(map[uuid.UUID]*entry, len(chunk))
		for _, id := range chunk {
			entries[id] = &entry{id: id}
		}
		orders, err := ask.Entries[books.Order](ctx, a.services[ask.Orders], chunk)
		if err != nil {
			return err
		}
		for i, o := range orders {
			entries[o.OrderID].order = &orders[i]
		}
		reservations, err := ask.Entries[books.Reservation](ctx, a.services[ask.Products], chunk)
		if err != nil {
			return err
		}
		for i, r := range reservations {
			entries[r.OrderID].reservation = &reservations[i]
		}
		histories, err := ask.Entries[books.History](ctx, a.services[ask.Customers], chunk)
		if err != nil {
			return err
		}
		for _, h := range histories {
			e := entries[h.OrderID]
			e.histories = append(e.histories, h)
		}
		at := time.Now()
		for _, id := range chunk {
			do(*entries[id], at)
		}
	}
	return nil
}

// looks is how often a queue is found with messages before they count as
// waiting: under load there are some at most moments.
const looks = 5

// lookAtQueues finds out in which queues messages wait. One of which that cannot be
// found out counts as such: what the broker keeps while it is away is not lost.
func (a *Audit) lookAtQueues(ctx context.Context) error {
	clear(a.queues)
	asked, _ := ask.Queues(events.Routes)
	for _, queues := range asked {
		for _, queue := range queues {
			a.queues[queue] = true
		}
	}
	silent := map[string]bool{} // costs a time-out each time it is asked
	for look := range looks {
		if look > 0 {
			if err := wait(ctx, time.Now().Add(50*time.Millisecond)); err != nil {
				return err
			}
		}
		for queue, waits := range a.queues {
			if !waits || silent[queue] {
				continue
			}
			owner, _, _ := strings.Cut(queue, ".")
			answer, err := a.services[owner].Handled(ctx, queue, []string{})
			if err != nil {
				return err
			}
			silent[queue] = answer.Depth.Unknown()
			a.queues[queue] = answer.Depth.Waiting > 0 || silent[queue]
		}
	}
	return nil
}

// stockReport is the last line of products' answer.
type stockReport struct {
	Products   int64         `json:"products"`
	Wrong      []books.Stock `json:"wrong"`
	WrongInAll int64         `json:"wrongInAll"` // more than are named, perhaps
	Done       bool          `json:"done"`
	Error      string        `json:"error"`
}

// checkStock has products compare its numbers.
func (a *Audit) checkStock(ctx context.Context) (last stockReport, err error) {
	query := url.Values{"rate": {strconv.Itoa(a.cfg.Rate)}}
	err = a.services[ask.Products].Lines(ctx, "stock", query, func(line json.RawMessage) error {
		last = stockReport{}
		return json.Unmarshal(line, &last)
	})
	switch {
	case err != nil:
	case last.Error != "":
		err = errors.New("ask products: stock: " + last.Error)
	case !last.Done:
		err = errors.New("ask products: stock: the answer is not complete")
	}
	return last, err
}
