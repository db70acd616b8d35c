package letter

import (
	"regexp"
	"strings"
	"time"
	"unicode/utf8"
)

// Cause is what the letters of a group have in common.
type Cause struct {
	Queue  string `json:"queue"`
	Reason string `json:"reason"`
	Error  string `json:"error"` // normalized
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
	return shorten(b.String(), maxNormalized)
}

// shorten cuts a text that has more bytes than most.
func shorten(text string, most int) string {
	if len(text) <= most {
		return text
	}
	for most > 0 && !utf8.RuneStart(text[most]) {
		most--
	}
	return text[:most] + "…"
}

// Group is all letters of one cause, counted by state.
type Group struct {
	ID int64 `json:"groupId"`
	Cause
	Waiting     int       `json:"waiting"`
	Redriving   int       `json:"redriving"`
	Handled     int       `json:"handled"`
	Unknown     int       `json:"unknown"`
	Discarded   int       `json:"discarded"`
	LastHour    int       `json:"lastHour"`
	FirstDiedAt time.Time `json:"firstDiedAt"`
	LastDiedAt  time.Time `json:"lastDiedAt"`
	Example     int64     `json:"exampleLetterId"` // its latest letter
	Note        *Note     `json:"note"`
}

// Note is what somebody knows of a group's cause.
type Note struct {
	Text string    `json:"text"`
	By   string    `json:"by"`
	At   time.Time `json:"at"`
}
