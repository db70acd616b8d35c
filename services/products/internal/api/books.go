package api

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"strconv"
	"time"

	"orderflow.internal/events/books"
	"orderflow.internal/kit/web"
	"orderflow.internal/products/internal/store"
)

const (
	maxStockRate = 1_000_000 // reservations a second
	// stockCheckTime is for all reservations, however many there are and whatever rate was asked for; stockCheckLimit
	// is when a check is given up, for it keeps a snapshot open.
	stockCheckTime  = 10 * time.Minute
	stockCheckLimit = 15 * time.Minute
	// stockProgress is the time between two lines: the gateway waits for the
	// first one for half a minute.
	stockProgress = time.Second
	// maxWrong bounds the products that an answer names.
	maxWrong = 1_000
)

// stockLine is a line of the answer. Only the last one has Done.
type stockLine struct {
	Reservations int64         `json:"reservations"`
	Products     int64         `json:"products"`
	Wrong        []books.Stock `json:"wrong,omitempty"`
	WrongInAll   int           `json:"wrongInAll"`
	Done         bool          `json:"done"`
	Error        string        `json:"error,omitempty"`
}

// checkStock answers with lines of JSON, for it takes its time. One at a time is
// enough: each keeps a snapshot open.
func (a *api) checkStock(w http.ResponseWriter, r *http.Request) error {
	rate, err := strconv.Atoi(r.URL.Query().Get("rate"))
	if err != nil || rate < 1 || rate > maxStockRate {
		return web.BadParameter("rate", fmt.Sprintf("must be an integer from 1 to %d", maxStockRate))
	}
	if r.Method == http.MethodHead { // the gateway would take the connection for free when the answer has begun
		w.Header().Set("Content-Type", "application/x-ndjson")
		return nil
	}
	select {
	case a.checking <- struct{}{}:
		defer func() { <-a.checking }()
	default:
		return web.Unavailable("The stock is being checked for somebody else.")
	}
	ctx, cancel := context.WithTimeout(r.Context(), stockCheckLimit)
	defer cancel()
	defer web.OnDrain(r.Context(), cancel)() // whoever asked asks again
	w.Header().Set("Content-Type", "application/x-ndjson")
	write := func(line stockLine) error {
		if err := json.NewEncoder(w).Encode(line); err != nil {
			return err
		}
		return http.NewResponseController(w).Flush()
	}
	var told time.Time
	check, err := a.store.CheckStock(ctx, rate, stockCheckTime, func(so store.StockCheck) error {
		if time.Since(told) < stockProgress {
			return nil
		}
		told = time.Now()
		return write(stockLine{Reservations: so.Reservations})
	})
	last := stockLine{
		Reservations: check.Reservations, Products: check.Products, WrongInAll: len(check.Wrong),
		Wrong: check.Wrong[:min(len(check.Wrong), maxWrong)], Done: err == nil,
	}
	if err != nil {
		slog.WarnContext(ctx, "the stock could not be checked", "error", err)
		last.Error = "the stock could not be checked, see the log of products"
	}
	return write(last)
}
