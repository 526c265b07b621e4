package tracing

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracegrpc"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
)

// Config says which spans a process of ours makes and where they go.
type Config struct {
	// Service is the resource attribute service.name, required.
	Service string
	// Endpoint takes OTLP over gRPC: "127.0.0.1:4317" or "unix:///path". With ""
	// no spans are made.
	Endpoint string
	// Insecure leaves out TLS.
	Insecure bool
	// SamplingRatio of the traces that begin here, 0 to 1. Others follow what
	// their beginning has decided.
	SamplingRatio float64
	// Attributes of the resource besides service.name.
	Attributes []attribute.KeyValue
	Log        *slog.Logger
}

// Propagator passes the trace on between processes: W3C Trace Context and Baggage.
func Propagator() propagation.TextMapPropagator {
	return propagation.NewCompositeTextMapPropagator(propagation.TraceContext{}, propagation.Baggage{})
}

// Start returns the provider of this process' tracers. Shutdown sends what is
// left, within its context, and must be called once. The collector need not be
// there yet or all the time; spans that cannot be kept are dropped. Nothing
// global is set.
func Start(ctx context.Context, c Config) (_ trace.TracerProvider, shutdown func(context.Context) error, err error) {
	if c.Service == "" || c.SamplingRatio < 0 || c.SamplingRatio > 1 {
		return nil, nil, fmt.Errorf("start tracing: service %q, sampling ratio %v: want a name and 0 to 1", c.Service, c.SamplingRatio)
	}
	if c.Endpoint == "" {
		return noop.NewTracerProvider(), func(context.Context) error { return nil }, nil
	}
	conn, err := dial(c.Endpoint, c.Insecure)
	if err != nil {
		return nil, nil, fmt.Errorf("start tracing: %w", err)
	}
	exporter, err := otlptrace.New(ctx, otlptracegrpc.NewClient(
		otlptracegrpc.WithGRPCConn(conn), otlptracegrpc.WithTimeout(5*time.Second)))
	if err != nil {
		return nil, nil, errors.Join(fmt.Errorf("start tracing: %w", err), conn.Close())
	}
	attributes := append([]attribute.KeyValue{attribute.String("service.name", c.Service)}, c.Attributes...)
	provider := sdktrace.NewTracerProvider(
		sdktrace.WithBatcher(&quiet{SpanExporter: exporter, log: c.Log}, sdktrace.WithBatchTimeout(time.Second)),
		sdktrace.WithSampler(sdktrace.ParentBased(sdktrace.TraceIDRatioBased(c.SamplingRatio))),
		sdktrace.WithResource(resource.NewSchemaless(attributes...)),
	)
	return provider, func(ctx context.Context) error {
		return errors.Join(provider.Shutdown(ctx), conn.Close())
	}, nil
}

// dial makes a connection that comes about when it is used.
func dial(endpoint string, plain bool) (*grpc.ClientConn, error) {
	creds := insecure.NewCredentials()
	if !plain {
		creds = credentials.NewTLS(&tls.Config{MinVersion: tls.VersionTLS12})
	}
	conn, err := grpc.NewClient(endpoint, grpc.WithTransportCredentials(creds), grpc.WithNoProxy())
	if err != nil {
		return nil, fmt.Errorf("collector endpoint %q: %w", endpoint, err)
	}
	return conn, nil
}

// quiet logs that the collector went away and came back, once each, where the
// SDK would write every failed batch to its global error handler.
type quiet struct {
	sdktrace.SpanExporter
	log *slog.Logger

	mu   sync.Mutex // guards away
	away bool
}

func (q *quiet) ExportSpans(ctx context.Context, spans []sdktrace.ReadOnlySpan) error {
	err := q.SpanExporter.ExportSpans(ctx, spans)
	q.mu.Lock()
	defer q.mu.Unlock()
	if away := err != nil; away != q.away {
		q.away = away
		if away {
			q.log.Warn("the trace collector does not take spans, dropping them", "error", err)
		} else {
			q.log.Info("the trace collector takes spans again")
		}
	}
	return nil
}
