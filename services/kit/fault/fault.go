// Package fault says what may be done about an error, for packages that have
// to react to one without knowing where it came from: a consumer that pauses
// while its database is away, an HTTP answer that promises no more than is
// known.
package fault

import "fmt"

// Kind is what may be done about an error.
type Kind int

const (
	// Other will fail the same way again, whoever tries.
	Other Kind = iota
	// Unavailable means that a dependency cannot be reached, or refuses
	// everybody for now. Nothing took effect: try again later.
	Unavailable
	// Conflict means that the work lost against concurrent work, as in a
	// deadlock or a serialization failure. Nothing took effect: try again at
	// once.
	Conflict
	// TooSlow means that the work ran into a time limit. Nothing took effect:
	// try again with less of it.
	TooSlow
	// Unknown means that nobody can tell yet whether the work took effect: the
	// connection was lost, or time ran out, after COMMIT had been sent. Only
	// work that is idempotent may be tried again.
	Unknown
)

// String returns the kind's name in lower case, for logs and metrics.
func (k Kind) String() string {
	switch k {
	case Other:
		return "other"
	case Unavailable:
		return "unavailable"
	case Conflict:
		return "conflict"
	case TooSlow:
		return "too slow"
	case Unknown:
		return "unknown"
	}
	return "invalid"
}

// Classifier tells the kind of an error that is not nil.
type Classifier func(error) Kind

// Wrap says what was being done when an error came. It is for a defer at the head
// of a function that says the same of all its errors:
//
//	defer fault.Wrap(&err, "edit customer %s", id)
func Wrap(err *error, format string, args ...any) {
	if *err != nil {
		*err = fmt.Errorf("%s: %w", fmt.Sprintf(format, args...), *err)
	}
}
