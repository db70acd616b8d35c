package bench

import (
	"bytes"
	"compress/gzip"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	trace "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"
)

// Every variant has every place and every successor equally often.
func TestTurns(t *testing.T) {
	const n = 3
	places, pairs := map[[2]int]int{}, map[[2]int]int{}
	for round := range 2 * n {
		order := turns(round, n)
		for place, variant := range order {
			places[[2]int{place, variant}]++
			if place > 0 {
				pairs[[2]int{order[place-1], variant}]++
			}
		}
	}
	for at, times := range places {
		if times != 2 {
			t.Errorf("variant %d has place %d %d times, want 2", at[1], at[0], times)
		}
	}
	for pair, times := range pairs {
		if times != 2 {
			t.Errorf("variant %d comes %d times after variant %d, want 2", pair[1], times, pair[0])
		}
	}
	if len(places) != n*n || len(pairs) != n*(n-1) {
		t.Errorf("places %v, pairs %v", places, pairs)
	}
}

// A round that was slow for all of them says nothing against any, and neither does one bad run.
func TestComparisonJudgesByTheMedianOfTheRounds(t *testing.T) {
	c := Comparison{Variants: variants("http://127.0.0.1:1")}
	for _, r := range [][3]float64{{1000, 990, 920}, {500, 495, 460}, {1000, 600, 500}, {1000, 1010, 930}, {2000, 1960, 1840}} {
		round := make(Round, len(r))
		for i := range r {
			cpu := 1 + float64(i)/2
			round[i] = Sample{OrdersPerSecond: r[i], CPU: &CPU{All: cpu, Processes: []ProcessCPU{{Name: "orders", Per1000: cpu}}}}
		}
		c.Rounds = append(c.Rounds, round)
	}
	if err := c.Err(); err != nil {
		t.Error(err)
	}
	if diff := cmp.Diff(Ratio{0.92, 0.5, 0.93}, c.ratio(2, throughput)); diff != "" {
		t.Errorf("throughput (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(Ratio{1.5, 1.5, 1.5}, c.ratio(1, allCPU)); diff != "" {
		t.Errorf("CPU (-want +got):\n%s", diff)
	}
	var text bytes.Buffer
	if err := c.Write(&text); err != nil {
		t.Fatal(err)
	}
	got := strings.Join(strings.Fields(text.String()), " ")
	if strings.Count(got, ": held") != 2 || !strings.Contains(got, "0.920 (0.500 to 0.930)") || !strings.Contains(got, " orders 1.000 1.500 2.000 ") {
		t.Errorf("%s", got)
	}

	for i := range c.Rounds {
		c.Rounds[i][1].OrdersPerSecond *= 0.98
		c.Rounds[i][2].OrdersPerSecond *= 0.97
	}
	err := c.Err()
	if err == nil || !strings.Contains(err.Error(), "tracing off") || !strings.Contains(err.Error(), "every order traced") {
		t.Errorf("got %v, want both to be told", err)
	}
	text.Reset()
	if err := c.Write(&text); err != nil || strings.Count(text.String(), ": BROKEN") != 2 {
		t.Errorf("%v\n%s", err, text.String())
	}
}

func TestSinkCountsSpans(t *testing.T) {
	s, err := newSink("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer s.close()
	request := &collector.ExportTraceServiceRequest{ResourceSpans: []*trace.ResourceSpans{
		{ScopeSpans: []*trace.ScopeSpans{{Spans: make([]*trace.Span, 2)}, {Spans: make([]*trace.Span, 1)}}},
		{ScopeSpans: []*trace.ScopeSpans{{Spans: make([]*trace.Span, 4)}}},
	}}
	for _, r := range request.ResourceSpans {
		for _, scope := range r.ScopeSpans {
			for i := range scope.Spans {
				scope.Spans[i] = &trace.Span{Name: "span"}
			}
		}
	}
	plain, err := proto.Marshal(request)
	if err != nil {
		t.Fatal(err)
	}
	var zipped bytes.Buffer
	z := gzip.NewWriter(&zipped)
	if _, err := z.Write(plain); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	post := func(data []byte, encoding string) {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.url()+"/v1/traces", bytes.NewReader(data))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Encoding", encoding)
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		if err := res.Body.Close(); err != nil || res.StatusCode != http.StatusOK {
			t.Errorf("%s, %v", res.Status, err)
		}
	}
	post(plain, "")
	post(zipped.Bytes(), "gzip")
	for _, want := range []int{14, 0} { // what was taken is gone
		if n, err := s.take(t.Context()); err != nil || n != want {
			t.Errorf("%d spans, %v; want %d", n, err, want)
		}
	}
	post(slices.Concat(plain, []byte{0xff}), "")
	if n, err := s.take(t.Context()); err == nil {
		t.Errorf("%d spans in what is no message", n)
	}
}
