package tracing

import (
	"context"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	collectorv1 "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// ForwarderConfig says where an agent's forwarder sends spans.
type ForwarderConfig struct {
	// Endpoint takes OTLP over gRPC, as in Config. With "" spans are discarded.
	Endpoint string
	Insecure bool
	// QueueBytes limits what waits for the collector; 0 is 4 MiB, some 10,000 spans.
	QueueBytes int
	// Flush is how long the end of Run may take to send what waits; 0 is 1 s.
	Flush time.Duration
	Log   *slog.Logger
}

// A Forwarder is the OTLP trace service of the agent's socket: it takes spans
// from Envoy at once and sends them to the collector when that is there. When
// too many wait, the oldest are dropped and counted. It is a
// prometheus.Collector, too.
type Forwarder struct {
	collectorv1.UnimplementedTraceServiceServer
	config ForwarderConfig
	conn   *grpc.ClientConn // nil if there is no endpoint
	queue  *queue

	received, forwarded, dropped atomic.Int64 // spans
}

// NewForwarder returns the forwarder, whose Run must be called.
func NewForwarder(c ForwarderConfig) (*Forwarder, error) {
	if c.QueueBytes <= 0 {
		c.QueueBytes = 4 << 20
	}
	if c.Flush <= 0 {
		c.Flush = time.Second
	}
	f := &Forwarder{config: c, queue: newQueue(c.QueueBytes)}
	if c.Endpoint == "" {
		return f, nil
	}
	var err error
	if f.conn, err = dial(c.Endpoint, c.Insecure); err != nil {
		return nil, fmt.Errorf("forward traces: %w", err)
	}
	return f, nil
}

// Register adds the service to the agent's gRPC server.
func (f *Forwarder) Register(s grpc.ServiceRegistrar) { collectorv1.RegisterTraceServiceServer(s, f) }

// Export takes spans from Envoy. It never waits and never fails, so that Envoy
// does not keep them.
func (f *Forwarder) Export(_ context.Context, req *collectorv1.ExportTraceServiceRequest) (*collectorv1.ExportTraceServiceResponse, error) {
	it := newItem(req)
	f.received.Add(int64(it.spans))
	if f.conn != nil {
		f.dropped.Add(int64(f.queue.put(it)))
	}
	return &collectorv1.ExportTraceServiceResponse{}, nil
}

// Run sends what Export takes until ctx is done, and then for the Flush time
// what still waits. It is called once.
func (f *Forwarder) Run(ctx context.Context) error {
	if f.conn == nil {
		<-ctx.Done()
		return nil
	}
	client := collectorv1.NewTraceServiceClient(f.conn)
	f.pump(ctx, client)
	flush, cancel := context.WithTimeout(context.WithoutCancel(ctx), f.config.Flush)
	defer cancel()
	for {
		it, ok := f.queue.take()
		if !ok {
			break
		}
		if flush.Err() != nil || f.send(flush, client, it) == away {
			f.dropped.Add(int64(it.spans))
		}
	}
	if err := f.conn.Close(); err != nil {
		return fmt.Errorf("forward traces: %w", err)
	}
	return nil
}

// Waits between attempts to reach the collector.
const (
	minRetry = 100 * time.Millisecond
	maxRetry = 5 * time.Second
)

// pump sends the queue's items until ctx is done.
func (f *Forwarder) pump(ctx context.Context, client collectorv1.TraceServiceClient) {
	retry := minRetry
	for ctx.Err() == nil {
		it, ok := f.queue.take()
		if !ok {
			select {
			case <-f.queue.wake:
			case <-ctx.Done():
			}
			continue
		}
		switch f.send(ctx, client, it) {
		case done:
			if retry > minRetry {
				f.config.Log.Info("the trace collector takes spans again")
			}
			retry = minRetry
		case away:
			f.dropped.Add(int64(f.queue.putBack(it)))
			if retry == minRetry && ctx.Err() == nil {
				f.config.Log.Warn("the trace collector does not answer, keeping spans", "endpoint", f.config.Endpoint, "bytes", f.config.QueueBytes)
			}
			select {
			case <-time.After(retry):
			case <-ctx.Done():
			}
			retry = min(2*retry, maxRetry)
		}
	}
}

type outcome int

const (
	done outcome = iota // forwarded, or refused for good and counted as dropped
	away                // to be sent again
)

// send makes one attempt.
func (f *Forwarder) send(ctx context.Context, client collectorv1.TraceServiceClient, it item) outcome {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	_, err := client.Export(ctx, it.req)
	// The codes after which OTLP allows another attempt:
	// opentelemetry.io/docs/specs/otlp/#failures.
	switch status.Code(err) {
	case codes.OK:
		f.forwarded.Add(int64(it.spans))
		return done
	case codes.Canceled, codes.DeadlineExceeded, codes.Aborted, codes.OutOfRange, codes.Unavailable, codes.DataLoss, codes.ResourceExhausted:
		return away
	}
	f.dropped.Add(int64(it.spans))
	f.config.Log.Debug("the trace collector refuses spans", "spans", it.spans, "error", err)
	return done
}

var (
	receivedDesc  = prometheus.NewDesc("heddle_trace_spans_received_total", "Spans taken from Envoy.", nil, nil)
	forwardedDesc = prometheus.NewDesc("heddle_trace_spans_forwarded_total", "Spans that the collector has taken.", nil, nil)
	droppedDesc   = prometheus.NewDesc("heddle_trace_spans_dropped_total", "Spans dropped because the collector was away too long or refused them.", nil, nil)
	queueDesc     = prometheus.NewDesc("heddle_trace_queue_bytes", "Bytes of spans that wait for the collector.", nil, nil)
)

// Describe is of prometheus.Collector.
func (f *Forwarder) Describe(descs chan<- *prometheus.Desc) { prometheus.DescribeByCollect(f, descs) }

// Collect is of prometheus.Collector.
func (f *Forwarder) Collect(metrics chan<- prometheus.Metric) {
	counter := func(d *prometheus.Desc, n *atomic.Int64) {
		metrics <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(n.Load()))
	}
	counter(receivedDesc, &f.received)
	counter(forwardedDesc, &f.forwarded)
	counter(droppedDesc, &f.dropped)
	metrics <- prometheus.MustNewConstMetric(queueDesc, prometheus.GaugeValue, float64(f.queue.bytes()))
}
