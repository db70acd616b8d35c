// Package logs turns the log files of a stack into one readable stream.
package logs

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"orderflow.internal/hack/console"
)

// Source is one log file.
type Source struct {
	Name string
	Path string
	// Server logs are those of RabbitMQ and PostgreSQL: only their warnings and errors are of interest here.
	Server bool
}

// formatter writes lines in columns: time, source, level, message, attributes.
type formatter struct {
	color bool
	width int // of the source column
}

var palette = map[string]console.Color{
	"gateway": console.Cyan, "orders": console.Green, "products": console.Magenta, "customers": console.Blue,
}

// format returns the line to show, or "" for one that is not of interest, and the time it tells, if any.
func (f formatter) format(s Source, line string) (shown string, at time.Time) {
	line = strings.TrimRight(line, "\r\n")
	if line == "" {
		return "", at
	}
	if s.Server {
		if !alarming(line) {
			return "", at
		}
		at, line = serverTime(line)
		return f.columns(at, s, "WARN", line, ""), at
	}
	e, ok := parse(line)
	if !ok {
		return f.columns(at, s, "", line, ""), at // a panic, or what a library prints
	}
	var attributes strings.Builder
	for _, a := range e.attributes {
		fmt.Fprintf(&attributes, " %s%s", f.paint(console.Gray, a.key+"="), a.value)
	}
	return f.columns(e.time, s, e.level, e.message, attributes.String()), e.time
}

// serverTime takes the time off a line of RabbitMQ or PostgreSQL, if it begins with one.
func serverTime(line string) (time.Time, string) {
	for _, layout := range []string{"2006-01-02 15:04:05.000000-07:00", "2006-01-02 15:04:05.000 UTC"} {
		if len(line) < len(layout) {
			continue
		}
		if at, err := time.Parse(layout, line[:len(layout)]); err == nil {
			return at, strings.TrimSpace(line[len(layout):])
		}
	}
	return time.Time{}, line
}

func (f formatter) columns(at time.Time, s Source, level, message, attributes string) string {
	clock := ""
	if !at.IsZero() {
		clock = at.Local().Format("15:04:05.000")
	}
	base, _, _ := strings.Cut(s.Name, "-") // a second instance has its service's color
	color, ok := palette[base]
	if !ok {
		color = console.Yellow
	}
	return fmt.Sprintf("%s %s %s %s%s",
		f.paint(console.Gray, fmt.Sprintf("%-12s", clock)),
		f.paint(color, fmt.Sprintf("%-*s", f.width, s.Name)),
		f.paint(levelColor(level), fmt.Sprintf("%-5s", level)),
		message, attributes)
}

func (f formatter) paint(c console.Color, text string) string { return console.Paint(f.color, c, text) }

func levelColor(level string) console.Color {
	switch level {
	case "ERROR":
		return console.Red
	case "WARN":
		return console.Yellow
	}
	return console.Gray
}

// alarming picks warnings and errors out of RabbitMQ's and PostgreSQL's logs.
func alarming(line string) bool {
	for _, mark := range []string{"[warning]", "[error]", "[critical]", " ERROR: ", " FATAL: ", " PANIC: ", " WARNING: "} {
		if strings.Contains(line, mark) {
			return true
		}
	}
	return false
}

type entry struct {
	time           time.Time
	level, message string
	attributes     []attribute
}

type attribute struct{ key, value string }

// parse reads a line of slog's JSON handler; attributes keep their order, groups become dotted keys.
func parse(line string) (entry, bool) {
	d := json.NewDecoder(strings.NewReader(line))
	d.UseNumber()
	if t, err := d.Token(); err != nil || t != json.Delim('{') {
		return entry{}, false
	}
	var e entry
	for d.More() {
		key, err := d.Token()
		if err != nil {
			return entry{}, false
		}
		var raw json.RawMessage
		if err := d.Decode(&raw); err != nil {
			return entry{}, false
		}
		e.add(key.(string), raw)
	}
	return e, e.message != "" || e.level != "" // JSON of another kind is shown as it is
}

func (e *entry) add(key string, raw json.RawMessage) {
	text := plain(raw)
	switch key {
	case "msg":
		if json.Unmarshal(raw, &e.message) != nil {
			e.message = text
		}
	case "time":
		e.time, _ = time.Parse(time.RFC3339Nano, text) // shown without a time when it is none
	case "level":
		e.level = text
	case "service": // the column says it
	default:
		e.attributes = append(e.attributes, attribute{key, text})
	}
}

// plain shows a JSON value as a person would write it.
func plain(raw json.RawMessage) string {
	var s string
	if json.Unmarshal(raw, &s) == nil {
		if strings.ContainsAny(s, " \t\n\"=") {
			return fmt.Sprintf("%q", s)
		}
		return s
	}
	return string(bytes.TrimSpace(raw))
}
