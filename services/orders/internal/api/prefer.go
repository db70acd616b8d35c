package api

import (
	"net/http"
	"strconv"
	"strings"
	"time"
)

const (
	defaultWait = 5 * time.Second
	maxWait     = 30 * time.Second
)

// preference is what a request's Prefer headers ask of the answer (RFC 7240).
type preference struct {
	wait  time.Duration // how long to wait for the final state; 0: not at all
	async bool          // respond-async was given
	timed bool          // wait was given
}

// parsePrefer reads wait=N (seconds, at most 30) and respond-async, alone or
// together: both mean an asynchronous answer after N seconds. Without either
// it is wait=5. As the RFC has it, the first of a repeated preference counts
// and what is unknown or malformed is ignored.
func parsePrefer(header http.Header) preference {
	p := preference{wait: defaultWait}
	for _, line := range header["Prefer"] {
		for line != "" {
			var item string
			item, line = cutUnquoted(line, ',')
			item, _ = cutUnquoted(item, ';') // parameters mean nothing to us
			name, value, _ := strings.Cut(item, "=")
			value = strings.Trim(value, " \t")
			switch strings.ToLower(strings.Trim(name, " \t")) {
			case "respond-async":
				p.async = true
			case "wait":
				if wait, ok := parseSeconds(value); ok && !p.timed {
					p.wait, p.timed = wait, true
				}
			}
		}
	}
	if p.async && !p.timed {
		p.wait = 0
	}
	return p
}

// applied is the Preference-Applied header of an answer; empty when nothing
// was asked for. An answer with the final state was not asynchronous.
func (p preference) applied(final bool) string {
	var applied []string
	if p.async && !final {
		applied = append(applied, "respond-async")
	}
	if p.timed {
		applied = append(applied, "wait="+strconv.Itoa(int(p.wait/time.Second)))
	}
	return strings.Join(applied, ", ")
}

// parseSeconds reads delta-seconds (RFC 9110), perhaps quoted, up to maxWait.
func parseSeconds(text string) (time.Duration, bool) {
	if n := len(text); n >= 2 && text[0] == '"' && text[n-1] == '"' {
		text = text[1 : n-1]
	}
	if text == "" {
		return 0, false
	}
	seconds := 0
	for i := range len(text) {
		digit := text[i] - '0'
		if digit > 9 {
			return 0, false
		}
		seconds = min(10*seconds+int(digit), int(maxWait/time.Second))
	}
	return time.Duration(seconds) * time.Second, true
}

// cutUnquoted cuts text at the first separator outside of a quoted string.
func cutUnquoted(text string, separator byte) (before, after string) {
	quoted := false
	for i := 0; i < len(text); i++ {
		switch c := text[i]; {
		case quoted && c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case c == separator && !quoted:
			return text[:i], text[i+1:]
		}
	}
	return text, ""
}
