package main

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/propagation"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
)

func TestLoad(t *testing.T) {
	otel.SetTracerProvider(sdktrace.NewTracerProvider())
	otel.SetTextMapPropagator(propagation.TraceContext{})
	traces := make(chan string, 10)
	var calls atomic.Int32
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		traces <- r.Header.Get("traceparent")
		if calls.Add(1) == 3 {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	}))
	defer server.Close()

	ctx, cancel := context.WithCancel(t.Context())
	ticks, lines := make(chan time.Time), make(chan time.Time)
	var out bytes.Buffer
	l, done := newLoad(server.URL), make(chan struct{})
	go func() { defer close(done); l.run(ctx, ticks, lines, &out) }()
	seen := map[string]bool{}
	for range 3 {
		ticks <- time.Time{}
		parent := strings.Split(<-traces, "-")
		if len(parent) != 4 || parent[3] != "01" || seen[parent[1]] {
			t.Errorf("traceparent %v: not a sampled trace of its own", parent)
		} else {
			seen[parent[1]] = true
		}
	}
	cancel()
	<-done
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	stop := l.serve(listener)
	var told summary
	resp, err := http.Get("http://" + listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if err := json.NewDecoder(resp.Body).Decode(&told); err != nil || told.OK != 2 || told.Failed != 1 {
		t.Errorf("told %+v, %v", told, err)
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
	if got, want := out.String(), "total ok=2 failed=1 last failure: \"503 Service Unavailable\"\n"; got != want {
		t.Errorf("said %q, want %q", got, want)
	}
	if line := l.next().String(); !strings.HasPrefix(line, "ok=2 failed=1 p50=") {
		t.Errorf("line %q", line)
	}
	if line := l.next().String(); line != "ok=0 failed=0" {
		t.Errorf("line after nothing: %q", line)
	}
}

// TestBounded holds all calls open: the one too many fails at once.
func TestBounded(t *testing.T) {
	release, arrived := make(chan struct{}), make(chan struct{}, maxOpen)
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		arrived <- struct{}{}
		<-release
	}))
	defer server.Close()
	ctx, cancel := context.WithCancel(t.Context())
	ticks := make(chan time.Time)
	var out bytes.Buffer
	l, done := newLoad(server.URL), make(chan struct{})
	go func() { defer close(done); l.run(ctx, ticks, nil, &out) }()
	for range maxOpen {
		ticks <- time.Time{}
	}
	for range maxOpen {
		<-arrived
	}
	ticks <- time.Time{}
	ticks <- time.Time{} // taken only after the one before was counted
	if c := l.next(); c.failed < 1 || c.ok != 0 {
		t.Errorf("counts %s", c)
	}
	cancel()
	close(release)
	<-done
}

func TestRate(t *testing.T) {
	for _, rate := range []float64{0, -1, 1001} {
		if _, err := run(t.Context(), config{rate: rate, every: time.Second}, io.Discard); err == nil {
			t.Errorf("rate %v was taken", rate)
		}
	}
}

// TestRun is a test's use of it: two URLs, an end, and a summary.
func TestRun(t *testing.T) {
	var plain, heavy atomic.Int32
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Shop-Version", "v1")
		if r.URL.Path == "/heavy" {
			heavy.Add(1)
			return
		}
		plain.Add(1)
		w.WriteHeader(http.StatusNotFound)
	}))
	defer server.Close()
	c := config{rate: 100, every: time.Hour, length: 500 * time.Millisecond, json: true}
	for _, u := range []string{server.URL + "/plain", "3*" + server.URL + "/heavy"} {
		if err := c.urls.Set(u); err != nil {
			t.Fatal(err)
		}
	}
	var out bytes.Buffer
	failed, err := run(t.Context(), c, &out)
	if err != nil {
		t.Fatal(err)
	}
	var got summary
	if err := json.Unmarshal(out.Bytes(), &got); err != nil {
		t.Fatalf("%v: %s", err, out.String())
	}
	if p, h := int(plain.Load()), int(heavy.Load()); failed != p || got.Failed != p || got.OK != h || got.Versions["v1"] != h || p != (p+h+3)/4 { // of four the first is plain
		t.Errorf("%d plain and %d heavy calls, summary %+v", p, h, got)
	}
	if got.P50 <= 0 || got.P99 < got.P50 || got.LastFailure != "404 Not Found" {
		t.Errorf("summary %+v", got)
	}
}

func TestQuantile(t *testing.T) {
	var h histogram
	h.add(time.Hour)
	for range 99 {
		h.add(3 * time.Millisecond)
	}
	if got := h.quantile(.5); got < 3*time.Millisecond || got > 3200*time.Microsecond {
		t.Errorf("p50 %s", got)
	}
	if h.quantile(1) < 30*time.Second || new(histogram).quantile(.5) != 0 {
		t.Errorf("p100 %s, of nothing %s", h.quantile(1), new(histogram).quantile(.5))
	}
}

func FuzzURLs(f *testing.F) {
	for _, s := range []string{"http://frontend/api/", "3*http://frontend/", "0*http://x/", "ftp://x/", "101*http://x/", "http://x/?a=*", "*"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		var u urls
		if err := u.Set(s); (err == nil) != (len(u) > 0) || len(u) > maxWeight {
			t.Errorf("%q: %v, %d", s, err, len(u))
		}
	})
}
