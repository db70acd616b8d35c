package api

import (
	"log/slog"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/google/uuid"

	"orderflow.internal/deadletters/internal/letter"
	"orderflow.internal/kit/web"
)

const (
	defaultRate = 100
	maxIDs      = 1000
	maxWhy      = 500
)

type selectionBody struct {
	LetterIDs []int64    `json:"letterIds"`
	Queue     *string    `json:"queue"`
	GroupID   *int64     `json:"groupId"`
	OrderID   *uuid.UUID `json:"orderId"`
	Text      *string    `json:"text"`
	Since     *time.Time `json:"since"`
	Until     *time.Time `json:"until"`
	Unknown   bool       `json:"unknown"`
}

func (s *selectionBody) filter(faults *web.Faults) (f letter.Filter) {
	if s == nil {
		faults.Add("selection", "is required")
		return f
	}
	f = letter.Filter{IDs: s.LetterIDs, OrderID: s.OrderID, Since: s.Since, Until: s.Until, Unknown: s.Unknown}
	if s.LetterIDs != nil && (len(s.LetterIDs) == 0 || len(s.LetterIDs) > maxIDs) {
		faults.Add("selection.letterIds", "must have 1 to %d entries", maxIDs)
	}
	for i, id := range s.LetterIDs {
		if id < 1 {
			faults.Add("selection.letterIds["+strconv.Itoa(i)+"]", "must be positive")
		}
	}
	if s.GroupID != nil {
		if f.GroupID = *s.GroupID; f.GroupID < 1 {
			faults.Add("selection.groupId", "must be positive")
		}
	}
	for _, text := range []struct {
		field string
		value *string
		limit int
		to    *string
	}{{"selection.queue", s.Queue, 255, &f.Queue}, {"selection.text", s.Text, maxText, &f.Text}} {
		if text.value != nil {
			if *text.to = *text.value; *text.value == "" {
				faults.Add(text.field, "must not be empty")
			}
			checkText(faults, text.field, *text.value, text.limit)
		}
	}
	for field, t := range map[string]*time.Time{"selection.since": s.Since, "selection.until": s.Until} {
		if t != nil && !storable(*t) {
			faults.Add(field, "must be a time of this era")
		}
	}
	if f.Empty() {
		faults.Add("selection", "must have a filter")
	}
	return f
}

func (a *api) discard(w http.ResponseWriter, r *http.Request) error {
	var asked struct {
		Selection *selectionBody `json:"selection"`
		Why       string         `json:"why"`
	}
	if err := web.Read(w, r, &asked); err != nil {
		return err
	}
	var faults web.Faults
	f := asked.Selection.filter(&faults)
	checkWhy(&faults, asked.Why, true)
	if err := faults.Err(); err != nil {
		return err
	}
	n, err := a.store.Discard(r.Context(), f, by(r), asked.Why)
	if err != nil {
		return err
	}
	return web.Write(w, http.StatusOK, struct {
		Discarded int `json:"discarded"`
	}{n})
}

func checkWhy(faults *web.Faults, why string, required bool) {
	if required && why == "" {
		faults.Add("why", "is required")
	}
	checkText(faults, "why", why, maxWhy)
}

func (a *api) plan(w http.ResponseWriter, r *http.Request) error {
	var asked struct {
		Selection *selectionBody `json:"selection"`
		Why       string         `json:"why"`
		Rate      *int64         `json:"rate"`
	}
	if err := web.Read(w, r, &asked); err != nil {
		return err
	}
	var faults web.Faults
	f := asked.Selection.filter(&faults)
	checkWhy(&faults, asked.Why, true)
	rate := int64(defaultRate)
	if asked.Rate != nil {
		rate = *asked.Rate
		faults.Number("rate", asked.Rate, 1, letter.MaxRate)
	}
	if err := faults.Err(); err != nil {
		return err
	}
	plan, err := a.store.Plan(r.Context(), f, by(r), asked.Why, int(rate))
	if err != nil {
		return err
	}
	// The plan is stored: what fails from here on must not invite anybody to make it again.
	plan.Orders.Asked, plan.Orders.Final = a.askAbout(r.Context(), plan.ID, r.Header.Get("Authorization"))
	if err := a.store.Asked(r.Context(), plan.ID, plan.Orders.Asked, plan.Orders.Final); err != nil {
		slog.WarnContext(r.Context(), "plan made without what orders said", "redrive_id", plan.ID, "error", err)
	}
	w.Header().Set("Location", "/api/deadletters/redrives/"+plan.ID.String())
	return web.Write(w, http.StatusCreated, redriveOf(plan))
}

func (a *api) step(step letter.Step) func(http.ResponseWriter, *http.Request, uuid.UUID) error {
	return func(w http.ResponseWriter, r *http.Request, id uuid.UUID) error {
		var start struct {
			Why       string `json:"why"`
			SkipTaken bool   `json:"skipTaken"`
		}
		var other struct {
			Why string `json:"why"`
		}
		var err error
		if step == letter.Start {
			err = web.Read(w, r, &start)
		} else {
			err = web.Read(w, r, &other)
			start.Why = other.Why
		}
		if err != nil {
			return err
		}
		var faults web.Faults
		checkWhy(&faults, start.Why, false)
		if err := faults.Err(); err != nil {
			return err
		}
		if err := a.store.Step(r.Context(), id, step, by(r), start.Why, start.SkipTaken); err != nil {
			return err
		}
		return a.redrive(w, r, id)
	}
}

func (a *api) redrive(w http.ResponseWriter, r *http.Request, id uuid.UUID) error {
	redrive, err := a.store.Redrive(r.Context(), id)
	if err != nil {
		return err
	}
	return web.Write(w, http.StatusOK, redriveOf(redrive))
}

// redriveBody is a redrive with its letters counted by outcome.
type redriveBody struct {
	letter.Redrive
	Planned int `json:"planned"`
	Sent    int `json:"sent"`
	Handled int `json:"handled"`
	Died    int `json:"died"`
	Unknown int `json:"unknown"`
	Skipped int `json:"skipped"`
}

func redriveOf(r letter.Redrive) redriveBody {
	return redriveBody{
		Redrive: r,
		Planned: r.Counts[letter.OutcomePlanned], Sent: r.Counts[letter.OutcomeSent],
		Handled: r.Counts[letter.OutcomeHandled], Died: r.Counts[letter.OutcomeDied],
		Unknown: r.Counts[letter.OutcomeUnknown], Skipped: r.Counts[letter.OutcomeSkipped],
	}
}

func (a *api) redrives(w http.ResponseWriter, r *http.Request) error {
	limit, cursor, err := web.Page(r)
	if err != nil {
		return err
	}
	createdAt, id, err := web.ParseCreationCursor(cursor)
	if err != nil {
		return err
	}
	found, err := a.store.Redrives(r.Context(), letter.Redrive{ID: id, CreatedAt: createdAt}, limit+1)
	if err != nil {
		return err
	}
	bodies := make([]redriveBody, len(found))
	for i, redrive := range found {
		bodies[i] = redriveOf(redrive)
	}
	return web.WritePage(w, "redrives", bodies, limit,
		func(r redriveBody) string { return web.CreationCursor(r.CreatedAt, r.ID) })
}

func (a *api) redriveLetters(w http.ResponseWriter, r *http.Request, id uuid.UUID) error {
	limit, cursor, err := web.Page(r)
	if err != nil {
		return err
	}
	after, err := cursorID(cursor)
	if err != nil {
		return err
	}
	outcome := letter.Outcome(r.URL.Query().Get("outcome"))
	if outcome != "" && !slices.Contains(letter.Outcomes, outcome) {
		return web.BadParameter("outcome", "is not an outcome of letters")
	}
	found, err := a.store.RedriveLetters(r.Context(), id, outcome, after, limit+1)
	if err != nil {
		return err
	}
	return web.WritePage(w, "letters", found, limit,
		func(l letter.RedriveLetter) string { return cursorOf(l.LetterID) })
}
