package letter

import (
	"regexp"
	"strings"
	"time"
	"unicode/utf8"
)

// Cause is what the letters of a group have in common.
type Cause struct {
	Queue, Reason string
	Error         string // normalized
}

// Cause returns the cause of the letter's death.
func (l *Letter) Cause() Cause { return Cause{l.Queue, l.Reason, Normalize(l.Error)} }

// maxNormalized bounds a normalized error, in bytes.
const maxNormalized = 300

// varying finds what differs between errors of one cause, the longest first.
var varying = regexp.MustCompile(`(?i)` + strings.Join([]string{
	`(?P<id>\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b)`,
	`(?P<time>\b\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:\.\d+)?(?:Z|[+-]\d\d:?\d\d)?)`,
	`(?P<hex>\b(?:0x[0-9a-f]+|[0-9a-f]*\d[0-9a-f]*[a-f][0-9a-f]{6,}|[0-9a-f]{16,})\b)`,
	`(?P<n>[0-9]+(?:\.[0-9]+)?)`,
}, "|"))

// Normalize leaves out of an error what differs from letter to letter: ids,
// times and numbers.
func Normalize(text string) string {
	names := varying.SubexpNames()
	var b strings.Builder
	end := 0
	for _, match := range varying.FindAllStringSubmatchIndex(text, -1) {
		b.WriteString(text[end:match[0]])
		end = match[1]
		for i := 1; i < len(names); i++ {
			if match[2*i] >= 0 {
				b.WriteString("<" + names[i] + ">")
			}
		}
	}
	b.WriteString(text[end:])
	normal := b.String()
	if len(normal) <= maxNormalized {
		return normal
	}
	cut := maxNormalized
	for cut > 0 && !utf8.RuneStart(normal[cut]) {
		cut--
	}
	return normal[:cut] + "…"
}

// Group is all letters of one cause.
type Group struct {
	ID int64
	Cause
	Counts      map[State]int
	LastHour    int
	FirstDiedAt time.Time
	LastDiedAt  time.Time
	Example     int64 // its latest letter
	Note        *Note
}

// Note is what somebody knows of a group's cause.
type Note struct {
	Text, By string
	At       time.Time
}
