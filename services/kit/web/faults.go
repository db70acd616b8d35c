package web

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/google/uuid"
)

// Faults collects the fields of a request that break a rule, so that one answer
// names them all. No detail repeats a value: values may be personal data.
type Faults struct{ fields []FieldError }

// Add says what is wrong with a field.
func (f *Faults) Add(field, format string, args ...any) {
	f.fields = append(f.fields, FieldError{Field: field, Detail: fmt.Sprintf(format, args...)})
}

// Err is nil when nothing was added, else [Invalid] with all of it.
func (f *Faults) Err() error {
	if f.fields == nil {
		return nil
	}
	return Invalid(f.fields...)
}

// Number wants a number from low to high; a nil pointer is a missing one.
func (f *Faults) Number(field string, n *int64, low, high int64) {
	switch {
	case n == nil:
		f.Add(field, "is required")
	case *n < low || *n > high:
		f.Add(field, "must be %d to %d", low, high)
	}
}

// Text wants one line of at most limit characters that shows something.
func (f *Faults) Text(field, s string, limit int) {
	switch {
	case strings.TrimSpace(s) == "":
		f.Add(field, "is required and must not be blank")
	case utf8.RuneCountInString(s) > limit:
		f.Add(field, "must have at most %d characters", limit)
	case strings.ContainsFunc(s, unicode.IsControl):
		f.Add(field, "must not contain control characters")
	}
}

// ID wants an id, if there is one, not to be the nil UUID.
func (f *Faults) ID(field string, id *uuid.UUID) {
	if id != nil && *id == uuid.Nil {
		f.Add(field, "must not be the nil UUID")
	}
}
