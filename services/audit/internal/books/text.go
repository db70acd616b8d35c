package books

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"orderflow.internal/events"
	"orderflow.internal/events/books"
)

// Write writes the report for people.
func (r *Report) Write(w io.Writer) {
	fmt.Fprintf(w, "Compared in %.1f s: %d orders, %d reservations, %d entries of histories", r.Seconds, r.Orders,
		r.Reservations, r.Histories)
	if r.Since.IsZero() {
		fmt.Fprintf(w, ", the stock of %d products.\n", r.Products)
	} else {
		fmt.Fprintf(w, ". The stock was not: that takes all orders.\n")
	}
	if r.InFlight > 0 {
		fmt.Fprintf(w, "%d orders are in flight: they change, or events of theirs wait to be published or handled.\n",
			r.InFlight)
	}
	if r.Unread > 0 {
		fmt.Fprintf(w, "%d more orders differ and were not looked at.\n", r.Unread)
	}
	for i, d := range r.Differences {
		subject := "order " + d.OrderID.String()
		if d.OrderID == uuid.Nil {
			subject = "product " + d.ProductID.String()
		}
		fmt.Fprintf(w, "\n%d. %s, %s\n", i+1, d.Kind, subject)
		for _, s := range d.Says {
			fmt.Fprintf(w, "   %-10s %s\n", s.Service, s.Says)
		}
		for _, command := range d.Repair {
			fmt.Fprintf(w, "   repair:    %s\n", command)
		}
	}
	fmt.Fprintf(w, "\n%s\n", r.Verdict())
}

// Balanced tells whether nothing is wrong.
func (r *Report) Balanced() bool { return r.Total()+r.Unread == 0 }

// Verdict is the result in a sentence.
func (r *Report) Verdict() string {
	if r.Balanced() {
		return "The books balance."
	}
	var counts []string
	for _, kind := range Kinds {
		if n := r.Counts[kind]; n > 0 {
			counts = append(counts, fmt.Sprintf("%d %s", n, kind))
		}
	}
	text := fmt.Sprintf("The books do not balance: %d differences (%s)", r.Total(), strings.Join(counts, ", "))
	if hidden := r.Total() - int64(len(r.Differences)); hidden > 0 {
		text += fmt.Sprintf(", %d of them not named", hidden)
	}
	return text + "."
}

// WriteCommands writes the commands that repair what was found, each once, and
// nothing else.
func (r *Report) WriteCommands(w io.Writer) {
	var seen []string
	for _, d := range r.Differences {
		for _, command := range d.Repair {
			if !slices.Contains(seen, command) {
				seen = append(seen, command)
				fmt.Fprintln(w, command)
			}
		}
	}
}

func describeOrder(o *books.Order) string {
	text := o.Status
	if o.Reason != "" {
		text += " (" + o.Reason + ")"
	}
	return text + ", " + describeItems(o.Items)
}

func describeReservation(r *books.Reservation) string {
	text := r.Status + ", " + describeItems(r.Items)
	switch {
	case r.Cancelled && r.Status == books.ReservationReserved:
		text += ", although its cancellation was handled"
	case !r.Cancelled && (r.Status == books.ReservationReleased || r.Status == books.ReservationCancelled):
		text += ", although its cancellation was not handled"
	case !r.Created && r.Status != books.ReservationCancelled:
		text += ", although its order was not handled"
	}
	return text
}

func describeItems(items []events.Item) string {
	if len(items) == 0 {
		return "no items"
	}
	parts := make([]string, len(items))
	for i, item := range items {
		parts[i] = fmt.Sprintf("%d of %s", item.Quantity, item.ProductID)
	}
	return strings.Join(parts, ", ")
}

// differing describes those fields of two states that differ, "" for none.
func differing(a, b books.State) (ofA, ofB string) {
	var left, right []string
	add := func(name string, x, y any, differ bool) {
		if differ {
			left, right = append(left, fmt.Sprintf("%s %v", name, x)), append(right, fmt.Sprintf("%s %v", name, y))
		}
	}
	add("customer", a.CustomerID, b.CustomerID, a.CustomerID != b.CustomerID)
	add("status", a.Status, b.Status, a.Status != b.Status)
	add("reason", quoted(a.Reason), quoted(b.Reason), a.Reason != b.Reason)
	add("items", describeItems(a.Items), describeItems(b.Items), !slices.Equal(a.Items, b.Items))
	add("total", a.TotalCents, b.TotalCents, a.TotalCents != b.TotalCents)
	add("currency", quoted(a.Currency), quoted(b.Currency), a.Currency != b.Currency)
	add("version", a.Version, b.Version, a.Version != b.Version)
	add("created", stamp(a.CreatedAt), stamp(b.CreatedAt), !a.CreatedAt.Equal(b.CreatedAt))
	add("updated", stamp(a.UpdatedAt), stamp(b.UpdatedAt), !a.UpdatedAt.Equal(b.UpdatedAt))
	return strings.Join(left, ", "), strings.Join(right, ", ")
}

func quoted(text string) string {
	if text == "" {
		return "none"
	}
	return text
}

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339Nano) }
