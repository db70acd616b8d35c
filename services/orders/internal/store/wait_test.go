package store

import (
	"context"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"orderflow.internal/kit/identity"
	"orderflow.internal/orders/internal/order"
)

// wait begins to wait and closes the waiter at the end of the test.
func wait(t testing.TB, r *replica, id uuid.UUID) *Waiter {
	t.Helper()
	w, ok := r.Wait(id)
	if !ok {
		t.Fatal("too many waiters")
	}
	t.Cleanup(w.Close)
	return w
}

// final returns what the waiter is told.
func final(t testing.TB, w *Waiter) order.Order {
	t.Helper()
	select {
	case o := <-w.Final():
		return o
	case <-time.After(10 * time.Second):
		t.Fatal("nothing was told")
		return order.Order{}
	}
}

func (ws *waiters) len() (orders, count int) {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	return len(ws.byOrder), ws.count
}

// Who begins to wait before the order is stored is told its end, whichever way
// it ends and whichever replica ends it.
func TestWaitersAreTold(t *testing.T) {
	t.Parallel()
	pool := openDatabase(t)
	here, elsewhere := newReplica(t, pool).run(t), newReplica(t, pool).run(t)
	ends := map[string]func(*replica, order.Order) error{
		"confirmed": func(r *replica, o order.Order) error {
			return r.Answer(t.Context(), []Answer{reserved(o)})
		},
		"refused": func(r *replica, o order.Order) error {
			return r.Answer(t.Context(), []Answer{notAvailable(o)})
		},
		"cancelled": func(r *replica, o order.Order) error {
			_, err := r.Cancel(t.Context(), identity.Everyone(), o.ID)
			return err
		},
	}
	for where, ending := range map[string]*replica{"here": here, "elsewhere": elsewhere} {
		for how, end := range ends {
			t.Run(how+" "+where, func(t *testing.T) {
				o := newOrder(t)
				first, second := wait(t, here, o.ID), wait(t, here, o.ID)
				mustPlace(t, here, o)
				if err := end(ending, o); err != nil {
					t.Fatal(err)
				}
				want := mustGet(t, here, o.ID)
				for _, w := range []*Waiter{first, second} {
					if diff := cmp.Diff(want, final(t, w)); diff != "" {
						t.Errorf("(-stored +told):\n%s", diff)
					}
				}
			})
		}
	}
	if orders, n := here.waiters.len(); orders != 0 || n != 0 {
		t.Errorf("%d waiters left for %d orders", n, orders)
	}
}

// No loop of this replica runs: nothing looks for what others have done.
func TestWaitersAreToldWithoutAQuery(t *testing.T) {
	t.Parallel()
	pool := openDatabase(t)
	o := mustPlace(t, newReplica(t, pool).run(t), newOrder(t))
	r := newReplica(t, pool)
	w := wait(t, r, o.ID)
	mustAnswer(t, r, reserved(o))
	if got := final(t, w); got.Status != order.Confirmed {
		t.Errorf("got %s", got.Status)
	}
}

func TestWaitersAreToldOfATimeOut(t *testing.T) {
	t.Parallel()
	r := newReplicaUntil(t, openDatabase(t), 100*time.Millisecond)
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = r.Run(ctx) // always nil
	}()
	t.Cleanup(func() { stop(); <-done })
	o := newOrder(t)
	w := wait(t, r, o.ID)
	mustPlace(t, r, o)
	if got := final(t, w); got.Status != order.Cancelled || got.Reason != order.TimedOut {
		t.Errorf("got %s %s", got.Status, got.Reason)
	}
}

func TestClosedWaitersLeaveNothing(t *testing.T) {
	t.Parallel()
	r := &Store{}
	r.waiters.init()
	a, b := uuid.New(), uuid.New()
	var all []*Waiter
	for _, id := range []uuid.UUID{a, b, a, a} {
		w, ok := r.Wait(id)
		if !ok {
			t.Fatal("too many waiters")
		}
		all = append(all, w)
	}
	if orders, n := r.waiters.len(); orders != 2 || n != 4 {
		t.Fatalf("%d waiters for %d orders", n, orders)
	}
	all[2].Close() // in the middle of the three
	all[2].Close() // again
	if orders, n := r.waiters.len(); orders != 2 || n != 3 {
		t.Errorf("%d waiters for %d orders", n, orders)
	}
	r.waiters.tell(order.Order{ID: a, Status: order.Pending})
	if orders, n := r.waiters.len(); orders != 2 || n != 3 {
		t.Errorf("told of a Pending order: %d waiters for %d orders", n, orders)
	}
	r.waiters.tell(order.Order{ID: a, Status: order.Confirmed})
	for _, i := range []int{0, 3} {
		if got := <-all[i].Final(); got.ID != a {
			t.Errorf("told of %s", got.ID)
		}
	}
	for _, w := range all {
		w.Close()
	}
	if orders, n := r.waiters.len(); orders != 0 || n != 0 {
		t.Errorf("%d waiters for %d orders", n, orders)
	}
	if len(all[1].Final()) != 0 || len(all[2].Final()) != 0 {
		t.Error("told who did not wait for it")
	}
}

func TestWaitersAreBounded(t *testing.T) {
	t.Parallel()
	r := &Store{}
	r.waiters.init()
	for range maxWaiters {
		if _, ok := r.Wait(uuid.New()); !ok {
			t.Fatal("refused too early")
		}
	}
	if _, ok := r.Wait(uuid.New()); ok {
		t.Error("no bound")
	}
}

// Only who has waited for a while is looked up in the database.
func TestYoungWaitersAreNotPolledFor(t *testing.T) {
	t.Parallel()
	r := &Store{}
	r.waiters.init()
	if ids, any := r.waiters.orders(time.Now()); len(ids) != 0 || any {
		t.Errorf("nobody waits: %v %v", ids, any)
	}
	w, _ := r.Wait(uuid.New())
	if ids, any := r.waiters.orders(w.since); len(ids) != 0 || !any {
		t.Errorf("young: %v %v", ids, any)
	}
	if ids, _ := r.waiters.orders(w.since.Add(1)); len(ids) != 1 || ids[0] != w.id {
		t.Errorf("old: %v", ids)
	}
}
