package tracing_test

import (
	"context"
	"log/slog"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	collectorv1 "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	tracev1 "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/heddle-mesh/heddle/telemetry/tracing"
)

func logger(t *testing.T) *slog.Logger { return slog.New(slog.NewTextHandler(t.Output(), nil)) }

// A collector keeps the names of the spans that it gets; "poison" it refuses.
type collector struct {
	collectorv1.UnimplementedTraceServiceServer
	mu    sync.Mutex // guards names
	names []string
	news  chan struct{}
}

func (c *collector) Export(_ context.Context, req *collectorv1.ExportTraceServiceRequest) (*collectorv1.ExportTraceServiceResponse, error) {
	c.mu.Lock()
	for _, rs := range req.ResourceSpans {
		for _, ss := range rs.ScopeSpans {
			for _, s := range ss.Spans {
				if s.Name == "poison" {
					c.mu.Unlock()
					return nil, status.Error(codes.InvalidArgument, "no such thing")
				}
				c.names = append(c.names, s.Name)
			}
		}
	}
	c.mu.Unlock()
	c.news <- struct{}{}
	return &collectorv1.ExportTraceServiceResponse{}, nil
}

func (c *collector) await(t *testing.T, want string) {
	t.Helper()
	timeout := time.After(20 * time.Second)
	for {
		c.mu.Lock()
		got := strings.Join(c.names, " ")
		c.mu.Unlock()
		if got == want {
			return
		}
		select {
		case <-c.news:
		case <-timeout:
			t.Fatalf("the collector has %q, want %q", got, want)
		}
	}
}

// serve starts a collector at the socket.
func serve(t *testing.T, socket string) *collector {
	t.Helper()
	c := &collector{news: make(chan struct{}, 1000)}
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	s := grpc.NewServer()
	collectorv1.RegisterTraceServiceServer(s, c)
	go s.Serve(l)
	t.Cleanup(s.Stop)
	return c
}

func spans(names ...string) *collectorv1.ExportTraceServiceRequest {
	ss := &tracev1.ScopeSpans{}
	for _, name := range names {
		ss.Spans = append(ss.Spans, &tracev1.Span{Name: name})
	}
	return &collectorv1.ExportTraceServiceRequest{ResourceSpans: []*tracev1.ResourceSpans{{ScopeSpans: []*tracev1.ScopeSpans{ss}}}}
}

func export(t *testing.T, f *tracing.Forwarder, names ...string) {
	t.Helper()
	if _, err := f.Export(t.Context(), spans(names...)); err != nil {
		t.Error(err)
	}
}

func start(t *testing.T, c tracing.ForwarderConfig) (f *tracing.Forwarder, stop func()) {
	t.Helper()
	c.Insecure, c.Log = true, logger(t)
	f, err := tracing.NewForwarder(c)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- f.Run(ctx) }()
	var once sync.Once
	stop = func() {
		once.Do(func() {
			cancel()
			if err := <-done; err != nil {
				t.Error(err)
			}
		})
	}
	t.Cleanup(stop)
	return f, stop
}

// metric reads one of the forwarder's metrics as Prometheus would.
func metric(t *testing.T, f *tracing.Forwarder, name string) float64 {
	t.Helper()
	r := prometheus.NewPedanticRegistry()
	if err := r.Register(f); err != nil {
		t.Fatal(err)
	}
	families, err := r.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, family := range families {
		if m := family.GetMetric()[0]; family.GetName() == name {
			return m.GetCounter().GetValue() + m.GetGauge().GetValue()
		}
	}
	t.Fatalf("no metric %s", name)
	return 0
}

func TestForwardWhileTheCollectorComesAndGoes(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "c.sock")
	f, stop := start(t, tracing.ForwarderConfig{Endpoint: "unix://" + socket})
	export(t, f, "early", "bird") // nobody is there yet
	c := serve(t, socket)
	c.await(t, "early bird")
	export(t, f, "poison")
	export(t, f, "later")
	c.await(t, "early bird later")
	stop()
	for name, want := range map[string]float64{
		"heddle_trace_spans_received_total": 4, "heddle_trace_spans_forwarded_total": 3,
		"heddle_trace_spans_dropped_total": 1, "heddle_trace_queue_bytes": 0,
	} {
		if got := metric(t, f, name); got != want {
			t.Errorf("%s = %v, want %v", name, got, want)
		}
	}
}

func TestTheOldestAreDropped(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "c.sock")
	one := strings.Repeat("x", 100)
	f, err := tracing.NewForwarder(tracing.ForwarderConfig{Endpoint: "unix://" + socket, Insecure: true, QueueBytes: 500, Log: logger(t)})
	if err != nil {
		t.Fatal(err)
	}
	for range 10 { // it does not run yet: all wait
		export(t, f, one)
	}
	export(t, f, "last")
	export(t, f, strings.Repeat("x", 1000)) // never fits
	dropped := metric(t, f, "heddle_trace_spans_dropped_total")
	if dropped < 6 || dropped > 9 || metric(t, f, "heddle_trace_queue_bytes") > 500 {
		t.Errorf("%v spans dropped, %v bytes kept", dropped, metric(t, f, "heddle_trace_queue_bytes"))
	}
	c := serve(t, socket)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- f.Run(ctx) }()
	c.await(t, strings.Repeat(one+" ", 11-int(dropped))+"last")
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestRunEndsInTimeWithoutCollector(t *testing.T) {
	f, stop := start(t, tracing.ForwarderConfig{Endpoint: "unix:///nonexistent.sock", Flush: 50 * time.Millisecond})
	for range 1000 {
		export(t, f, "lost")
	}
	began := time.Now()
	stop()
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("it took %s", took)
	}
	if got := metric(t, f, "heddle_trace_spans_dropped_total"); got != 1000 {
		t.Errorf("%v spans dropped, want all 1000", got)
	}
}

func TestWithoutEndpoint(t *testing.T) {
	f, stop := start(t, tracing.ForwarderConfig{})
	export(t, f, "nowhere")
	stop()
	if got := metric(t, f, "heddle_trace_queue_bytes"); got != 0 {
		t.Errorf("%v bytes kept", got)
	}
}
