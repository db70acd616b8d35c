package web

import (
	"encoding/base64"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/go-chi/chi/v5"
	"github.com/google/uuid"
)

// Bounds of a page.
const (
	DefaultLimit = 50
	MaxLimit     = 200
)

// maxFaults is how many parameters CheckQuery refuses at a time.
const maxFaults = 10

// PathUUID returns the UUID in the path parameter name: 36 characters, in upper
// case, too (RFC 9562, section 4).
func PathUUID(r *http.Request, name string) (uuid.UUID, error) {
	return parseUUID(name, chi.URLParam(r, name))
}

// WithID is a handler for routes with the id of one thing in their path, see
// [PathUUID].
func WithID(name string,
	fn func(http.ResponseWriter, *http.Request, uuid.UUID) error) func(http.ResponseWriter, *http.Request) error {
	return func(w http.ResponseWriter, r *http.Request) error {
		id, err := PathUUID(r, name)
		if err != nil {
			return err
		}
		return fn(w, r, id)
	}
}

// CheckQuery refuses, with a 400 that names it, each query parameter that is
// not one of known, is empty, is given twice or cannot be read, up to ten of
// them: an answer must not be much larger than its question. What net/http
// cannot read it leaves out: a filter with a slip in it would list everything.
func CheckQuery(r *http.Request, known ...string) error {
	if r.URL.RawQuery == "" {
		return nil
	}
	var faults []FieldError
	seen := make(map[string]bool)
	for pair := range strings.SplitSeq(r.URL.RawQuery, "&") {
		rawName, rawValue, _ := strings.Cut(pair, "=")
		name, errName := url.QueryUnescape(rawName)
		_, errValue := url.QueryUnescape(rawValue)
		fault := ""
		switch {
		case errName != nil:
			name, fault = rawName, "has a name that cannot be read"
		case !slices.Contains(known, name):
			fault = "is not a parameter of this request"
		case strings.Contains(pair, ";"):
			fault = "must not contain a semicolon: parameters are separated by &"
		case errValue != nil:
			fault = "has a value that cannot be read"
		case rawValue == "":
			fault = "must not be empty"
		case seen[name]:
			fault = "must be given once"
		}
		seen[name] = true
		if fault != "" {
			faults = append(faults, FieldError{Field: name, Detail: fault})
		}
		if len(faults) == maxFaults {
			break
		}
	}
	if faults == nil {
		return nil
	}
	return badParameters(faults...)
}

// QueryUUID returns the UUID in the query parameter name; ok tells whether it
// was given. The query is one that CheckQuery took.
func QueryUUID(r *http.Request, name string) (id uuid.UUID, ok bool, err error) {
	value := r.URL.Query().Get(name)
	if value == "" {
		return uuid.Nil, false, nil
	}
	id, err = parseUUID(name, value)
	return id, err == nil, err
}

const uuidLength = len("xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx")

func parseUUID(name, value string) (uuid.UUID, error) {
	id, err := uuid.Parse(value)
	// Parse takes braces, urn:uuid: and no hyphens as well.
	if err != nil || len(value) != uuidLength {
		return uuid.Nil, BadParameter(name, "must be a UUID")
	}
	return id, nil
}

// Page returns the query's limit, 1 to 200 (50 when not given), and cursor, ""
// for the first page. See ParseCursor. The query is one that CheckQuery took.
func Page(r *http.Request) (limit int, after string, err error) {
	query := r.URL.Query()
	limit = DefaultLimit
	if query.Has("limit") {
		limit, err = strconv.Atoi(query.Get("limit"))
		if err != nil || limit < 1 || limit > MaxLimit {
			return 0, "", BadParameter("limit", "must be an integer from 1 to "+strconv.Itoa(MaxLimit))
		}
	}
	return limit, query.Get("after"), nil
}

// WritePage answers with rows under their name. The caller has asked for one more
// than limit: it tells that there is a next page, whose cursor is that of the last
// row of this one.
func WritePage[T any](w http.ResponseWriter, name string, rows []T, limit int, cursor func(last T) string) error {
	page := map[string]any{}
	if len(rows) > limit {
		rows = rows[:limit]
		page["next"] = cursor(rows[limit-1])
	}
	page[name] = append([]T{}, rows...) // never null
	return Write(w, http.StatusOK, page)
}

const cursorSeparator = "\x1f"

// Cursor packs the sort key of a page's last row into an opaque string. The
// parts must not contain the control character 0x1F.
func Cursor(parts ...string) string {
	return base64.RawURLEncoding.EncodeToString([]byte(strings.Join(parts, cursorSeparator)))
}

// ParseCursor returns the parts of a cursor, or a 400 when there are not
// exactly n. Clients can make up cursors: the parts are untrusted input.
func ParseCursor(after string, n int) ([]string, error) {
	data, err := base64.RawURLEncoding.DecodeString(after)
	parts := strings.Split(string(data), cursorSeparator)
	if err != nil || len(parts) != n || Cursor(parts...) != after {
		return nil, BadCursor()
	}
	return parts, nil
}

// CreationCursor is the Cursor of rows in the order of their creation, those of
// one moment by id.
func CreationCursor(createdAt time.Time, id uuid.UUID) string {
	return Cursor(strconv.FormatInt(createdAt.UnixMicro(), 10), id.String())
}

// ParseCreationCursor returns what CreationCursor packed, zeros for the first
// page.
func ParseCreationCursor(after string) (createdAt time.Time, id uuid.UUID, err error) {
	if after == "" {
		return time.Time{}, uuid.Nil, nil
	}
	parts, err := ParseCursor(after, 2)
	if err != nil {
		return time.Time{}, uuid.Nil, err
	}
	micros, errTime := strconv.ParseInt(parts[0], 10, 64)
	id, errID := uuid.Parse(parts[1])
	createdAt = time.UnixMicro(micros)
	// The bound keeps out times that PostgreSQL cannot hold.
	if errTime != nil || errID != nil || micros < 0 || createdAt.Year() > 9999 {
		return time.Time{}, uuid.Nil, BadCursor()
	}
	return createdAt, id, nil
}

// BadCursor is a cursor whose parts make no sense: 400.
func BadCursor() *Problem {
	return BadParameter("after", "must be a cursor from an earlier answer")
}
