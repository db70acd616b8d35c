package telemetry

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"testing"
	"time"

	"go.opentelemetry.io/otel/trace"
)

func TestJSONLines(t *testing.T) {
	var out bytes.Buffer
	log := slog.New(jsonLog.handler(&out, "orders"))
	ctx := trace.ContextWithSpanContext(t.Context(), trace.NewSpanContext(trace.SpanContextConfig{
		TraceID: trace.TraceID{1}, SpanID: trace.SpanID{2}}))
	log.With("orderId", 7).ErrorContext(ctx, "place order", "error", errors.New("no"))
	log.Debug("not at this level")

	var got map[string]any
	if err := json.Unmarshal(out.Bytes(), &got); err != nil {
		t.Fatalf("%v: %s", err, &out)
	}
	delete(got, "time")
	want := "map[error:no level:ERROR msg:place order orderId:7 service:orders " +
		"span_id:0200000000000000 trace_id:01000000000000000000000000000000]"
	if fmt.Sprint(got) != want {
		t.Errorf("%v", got)
	}
}

// Both formats end a line with the ids of the span it was written in, so that
// the message is where the eye expects it; a line outside any span has no ids.
func TestLinesNameTheirSpan(t *testing.T) {
	const ids = "trace_id 01000000000000000000000000000000 span_id 0200000000000000"
	ctx := trace.ContextWithSpanContext(t.Context(), trace.NewSpanContext(trace.SpanContextConfig{
		TraceID: trace.TraceID{1}, SpanID: trace.SpanID{2}}))
	formats := map[string]*strings.Replacer{
		"text": strings.NewReplacer("=", " "),
		"json": strings.NewReplacer(`"`, "", ":", " ", ",", " ", "}", ""),
	}
	for format, marks := range formats {
		for _, level := range []slog.Level{slog.LevelDebug, slog.LevelInfo, slog.LevelWarn, slog.LevelError} {
			var out bytes.Buffer
			log := slog.New(LogConfig{Format: format, Level: slog.LevelDebug}.handler(&out, "orders")).With("order_id", 7)
			log.Log(ctx, level, "placed", "attempt", 2)
			if line := marks.Replace(strings.TrimSpace(out.String())); !strings.HasSuffix(line, "order_id 7 attempt 2 "+ids) {
				t.Errorf("%s, %s: %q", format, level, line)
			}
			out.Reset()
			log.Log(t.Context(), level, "placed")
			if strings.Contains(out.String(), "trace_id") || strings.Contains(out.String(), "span_id") {
				t.Errorf("%s, %s: %q names a span", format, level, &out)
			}
		}
	}
}

func TestSubjectHasTheProgramsName(t *testing.T) {
	for format, want := range map[string]string{
		"text": "order_id=7 http.subject=8", "json": `"order_id":7,"http":{"subject":8}`,
	} {
		var out bytes.Buffer
		log := slog.New(LogConfig{Format: format, Subject: "order_id"}.handler(&out, "orders"))
		log.Info("message failed", "subject", 7, slog.Group("http", "subject", 8))
		if !strings.Contains(out.String(), want) {
			t.Errorf("%s: %s lacks %s", format, &out, want)
		}
	}
}

func TestTextLines(t *testing.T) {
	var out bytes.Buffer
	log := slog.New(LogConfig{Format: "text", Level: slog.LevelDebug}.handler(&out, "orders"))
	log.With("orderId", 7).WithGroup("http").Warn("place order", "msg", "a b", "time", 3)
	clock, rest, _ := strings.Cut(strings.TrimSpace(out.String()), " ")
	if _, err := time.Parse("time=15:04:05.000", clock); err != nil {
		t.Error(err)
	}
	want := `level=WARN msg="place order" service=orders orderId=7 http.msg="a b" http.time=3`
	if rest != want {
		t.Errorf("%q, want %q", rest, want)
	}
}

func TestFormatIsJSONWithoutATerminal(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	slog.New(LogConfig{Format: "auto"}.handler(w, "orders")).Info("x")
	w.Close()
	var line map[string]any
	if err := json.NewDecoder(r).Decode(&line); err != nil {
		t.Error(err)
	}
}

func TestErrorLogSpeaksOnceAMinute(t *testing.T) {
	var out bytes.Buffer
	now := time.Now()
	e := newErrorLog(slog.NewTextHandler(&out, nil))
	e.now = func() time.Time { return now }
	for range 100 {
		e.Handle(errors.New("connection refused"))
	}
	if n := strings.Count(out.String(), "connection refused"); n != 1 {
		t.Errorf("%d lines", n)
	}
	out.Reset()
	now = now.Add(errorLogInterval)
	e.Handle(errors.New("connection refused"))
	if !strings.Contains(out.String(), "not_logged_before=99") {
		t.Errorf("%s", &out)
	}
}

func TestLogConfigValidate(t *testing.T) {
	if err := (LogConfig{Format: "xml"}).Validate(); err == nil || !strings.Contains(err.Error(), "LOG_FORMAT") {
		t.Error(err)
	}
}
