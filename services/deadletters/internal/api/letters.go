package api

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"slices"
	"strconv"
	"unicode/utf8"

	"github.com/google/uuid"

	"orderflow.internal/deadletters/internal/letter"
	"orderflow.internal/kit/bus"
	"orderflow.internal/kit/web"
)

// summaryBody is a letter without its message.
type summaryBody struct {
	letter.Letter
	TraceID *string `json:"traceId"` // null when there is none
}

func summaryOf(l letter.Letter) summaryBody {
	b := summaryBody{Letter: l}
	if l.TraceID != "" {
		b.TraceID = &l.TraceID
	}
	return b
}

type fieldBody struct {
	Name  string `json:"name"`
	Type  string `json:"type"`
	Value string `json:"value"`
}

// fieldsOf shows the values of tables and arrays as JSON.
func fieldsOf(fields []bus.Field) ([]fieldBody, error) {
	bodies := make([]fieldBody, len(fields))
	for i, f := range fields {
		bodies[i] = fieldBody{f.Name, f.Type, f.Value}
		if f.Type == "table" || f.Type == "array" {
			text, err := json.Marshal(plain(f))
			if err != nil {
				return nil, err
			}
			bodies[i].Value = string(text)
		}
	}
	return bodies, nil
}

func plain(f bus.Field) any {
	switch f.Type {
	case "table":
		m := make(map[string]any, len(f.Items))
		for _, item := range f.Items {
			m[item.Name] = plain(item)
		}
		return m
	case "array":
		list := make([]any, len(f.Items))
		for i, item := range f.Items {
			list[i] = plain(item)
		}
		return list
	}
	return f.Value
}

type contentBody struct {
	JSON      *string `json:"json,omitempty"`
	Text      *string `json:"text,omitempty"`
	Base64    *string `json:"base64,omitempty"`
	Truncated bool    `json:"truncated"`
}

// maxShown bounds how much of a body is shown, in bytes.
const maxShown = 64 << 10

func contentOf(body []byte) contentBody {
	shown := body
	if len(shown) > maxShown {
		shown = shown[:maxShown]
	}
	c := contentBody{Truncated: len(shown) < len(body)}
	switch {
	case !c.Truncated && json.Valid(body):
		c.JSON = new(string(body))
	case isText(shown, c.Truncated):
		// The cut may have gone through a character.
		c.Text = new(string(bytes.ToValidUTF8(shown, nil)))
	default:
		c.Base64 = new(base64.StdEncoding.EncodeToString(shown))
	}
	return c
}

// isText tells UTF-8 without NUL. The last character of what is truncated may be
// cut.
func isText(b []byte, truncated bool) bool {
	for cut := 0; cut < utf8.UTFMax && cut <= len(b); cut++ {
		if utf8.Valid(b[:len(b)-cut]) {
			return !bytes.ContainsRune(b, 0)
		}
		if !truncated {
			return false
		}
	}
	return false
}

type letterBody struct {
	summaryBody
	Properties []fieldBody    `json:"properties"`
	Headers    []fieldBody    `json:"headers"`
	Body       contentBody    `json:"body"`
	History    []letter.Entry `json:"history,omitempty"` // left out of an export
}

func bodyOf(l *letter.Letter, history []letter.Entry) (letterBody, error) {
	b := letterBody{summaryBody: summaryOf(*l), Body: contentOf(l.Message.Body), History: history}
	var err error
	if b.Properties, err = fieldsOf(l.Message.Properties); err != nil {
		return b, err
	}
	b.Headers, err = fieldsOf(l.Message.Headers)
	return b, err
}

// readFilter reads a filter from the query, which CheckQuery took.
func readFilter(r *http.Request) (f letter.Filter, err error) {
	query := r.URL.Query()
	f.Queue, f.Text, f.State = query.Get("queue"), query.Get("text"), letter.State(query.Get("state"))
	if f.State != "" && !slices.Contains(letter.States, f.State) {
		return f, web.BadParameter("state", "is not a state of letters")
	}
	for name, value := range map[string]string{"text": f.Text, "queue": f.Queue} {
		if utf8.RuneCountInString(value) > maxText || !storableText(value) {
			return f, web.BadParameter(name, "must have at most 200 characters, and none that text cannot have")
		}
	}
	if f.GroupID, err = queryNumber(r, "groupId"); err != nil {
		return f, err
	}
	if f.Since, err = queryTime(r, "since"); err != nil {
		return f, err
	}
	if f.Until, err = queryTime(r, "until"); err != nil {
		return f, err
	}
	for name, to := range map[string]**uuid.UUID{"orderId": &f.OrderID, "redriveId": &f.RedriveID} {
		id, given, err := web.QueryUUID(r, name)
		if err != nil {
			return f, err
		}
		if given {
			*to = &id
		}
	}
	return f, nil
}

const maxText = 200

// storableText tells text that PostgreSQL can hold.
func storableText(s string) bool { return utf8.ValidString(s) && !bytes.ContainsRune([]byte(s), 0) }

func (a *api) list(w http.ResponseWriter, r *http.Request) error {
	f, err := readFilter(r)
	if err != nil {
		return err
	}
	limit, cursor, err := web.Page(r)
	if err != nil {
		return err
	}
	after, err := cursorPlace(cursor)
	if err != nil {
		return err
	}
	// One more than asked tells whether there is a next page.
	found, err := a.store.Letters(r.Context(), f, after, limit+1)
	if err != nil {
		return err
	}
	bodies := make([]summaryBody, len(found))
	for i, l := range found {
		bodies[i] = summaryOf(l)
	}
	return web.WritePage(w, "letters", bodies, limit,
		func(l summaryBody) string { return placeCursor(l.DiedAt, l.ID) })
}

func (a *api) get(w http.ResponseWriter, r *http.Request) error {
	id, err := pathNumber(r, "letterId")
	if err != nil {
		return err
	}
	l, err := a.store.Letter(r.Context(), id)
	if err != nil {
		return err
	}
	life, err := a.store.Life(r.Context(), id)
	if err != nil {
		return err
	}
	b, err := bodyOf(&l, life)
	if err != nil {
		return err
	}
	return web.Write(w, http.StatusOK, b)
}

func (a *api) body(w http.ResponseWriter, r *http.Request) error {
	id, err := pathNumber(r, "letterId")
	if err != nil {
		return err
	}
	l, err := a.store.Letter(r.Context(), id)
	if err != nil {
		return err
	}
	// Whatever it says of itself: nobody's browser is to make a page of it.
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("Content-Disposition", `attachment; filename="letter-`+strconv.FormatInt(id, 10)+`"`)
	w.Header().Set("Content-Length", strconv.Itoa(len(l.Message.Body)))
	_, _ = w.Write(l.Message.Body) // a client that is gone needs no answer
	return nil
}

func (a *api) export(w http.ResponseWriter, r *http.Request) error {
	f, err := readFilter(r)
	if err != nil {
		return err
	}
	letters, err := a.store.Export(r.Context(), f, 0)
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/x-ndjson")
	if r.Method == http.MethodHead { // the gateway would take the connection for free when the answer has begun
		return nil
	}
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	defer web.OnDrain(ctx, cancel)()
	lines := json.NewEncoder(w)
	lines.SetEscapeHTML(false)
	for len(letters) > 0 && err == nil {
		for i := range letters {
			b, err := bodyOf(&letters[i], nil)
			if err == nil {
				err = lines.Encode(b)
			}
			if err != nil {
				panic(http.ErrAbortHandler) // what was sent must not look whole
			}
		}
		letters, err = a.store.Export(ctx, f, letters[len(letters)-1].ID)
	}
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	return nil
}

func (a *api) groups(w http.ResponseWriter, r *http.Request) error {
	limit, cursor, err := web.Page(r)
	if err != nil {
		return err
	}
	after, err := cursorPlace(cursor)
	if err != nil {
		return err
	}
	queue := r.URL.Query().Get("queue")
	if !storableText(queue) {
		return web.BadParameter("queue", "must be text")
	}
	found, err := a.store.Groups(r.Context(), queue, after, limit+1)
	if err != nil {
		return err
	}
	return web.WritePage(w, "groups", found, limit,
		func(g letter.Group) string { return placeCursor(g.LastDiedAt, g.ID) })
}

func (a *api) note(w http.ResponseWriter, r *http.Request) error {
	id, err := pathNumber(r, "groupId")
	if err != nil {
		return err
	}
	var asked struct {
		Text *string `json:"text"`
	}
	if err := web.Read(w, r, &asked); err != nil {
		return err
	}
	var faults web.Faults
	if asked.Text == nil {
		faults.Add("text", "is required")
	} else {
		checkText(&faults, "text", *asked.Text, 2000)
	}
	if err := faults.Err(); err != nil {
		return err
	}
	n, err := a.store.Note(r.Context(), id, *asked.Text, by(r))
	if err != nil {
		return err
	}
	return web.Write(w, http.StatusOK, n)
}

// checkText wants text of at most limit characters, lines and all.
func checkText(faults *web.Faults, field, s string, limit int) {
	switch {
	case utf8.RuneCountInString(s) > limit:
		faults.Add(field, "must have at most %d characters", limit)
	case !storableText(s):
		faults.Add(field, "must be text")
	}
}

func (a *api) history(w http.ResponseWriter, r *http.Request) error {
	limit, cursor, err := web.Page(r)
	if err != nil {
		return err
	}
	before, err := cursorID(cursor)
	if err != nil {
		return err
	}
	var redriveID *uuid.UUID
	if id, given, err := web.QueryUUID(r, "redriveId"); err != nil {
		return err
	} else if given {
		redriveID = &id
	}
	var letterID *int64
	if id, err := queryNumber(r, "letterId"); err != nil {
		return err
	} else if id != 0 {
		letterID = &id
	}
	entries, err := a.store.History(r.Context(), redriveID, letterID, before, limit+1)
	if err != nil {
		return err
	}
	return web.WritePage(w, "entries", entries, limit, func(e letter.Entry) string { return cursorOf(e.ID) })
}
