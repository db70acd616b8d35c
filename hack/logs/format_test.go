package logs

import (
	"testing"
	"time"
)

func TestFormat(t *testing.T) {
	f := formatter{width: 9}
	service, server := Source{Name: "orders"}, Source{Name: "postgres", Server: true}
	tests := []struct {
		name   string
		source Source
		line   string
		want   string
	}{
		{
			"attributes keep their order, the service's name goes", service,
			`{"time":"bad","level":"WARN","msg":"order late","service":"orders","orderId":"7","n":3,"err":"a b","trace_id":"f","span_id":"e"}`,
			`             orders    WARN  order late orderId=7 n=3 err="a b" trace_id=f span_id=e`,
		},
		{"a group", service, `{"level":"INFO","msg":"x","http":{"status":200}}`, `             orders    INFO  x http={"status":200}`},
		{"no JSON", service, "panic: oh", "             orders          panic: oh"},
		{"broken JSON", service, `{"level":`, `             orders          {"level":`},
		{"JSON of others", service, `{"a":1}`, `             orders          {"a":1}`},
		{"empty", service, "\n", ""},
		{"a server's routine", server, "2026-11-23 [1] LOG:  checkpoint starting", ""},
		{"a server's error", server, "2026-11-23 [1] ERROR:  deadlock detected", "             postgres  WARN  2026-11-23 [1] ERROR:  deadlock detected"},
		{
			"a server's time moves into its column", server, "2026-11-23 12:58:52.172 UTC [7] ERROR:  deadlock detected",
			clock(t, "2026-11-23T12:58:52.172Z") + " postgres  WARN  [7] ERROR:  deadlock detected",
		},
		{
			"the broker's, too", server, "2026-11-23 12:58:52.172345+00:00 [error] <0.1.0> oh",
			clock(t, "2026-11-23T12:58:52.172Z") + " postgres  WARN  [error] <0.1.0> oh",
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got, _ := f.format(tt.source, tt.line); got != tt.want {
				t.Errorf("got  %q\nwant %q", got, tt.want)
			}
		})
	}
}

// clock is the time as it is shown here, which depends on the machine's time zone.
func clock(t *testing.T, rfc3339 string) string {
	t.Helper()
	at, err := time.Parse(time.RFC3339, rfc3339)
	if err != nil {
		t.Fatal(err)
	}
	return at.Local().Format("15:04:05.000")
}
