// Package trace makes a program of the shop part of the mesh's traces, as any application
// does it: with the OpenTelemetry SDK and the environment that its sidecar gives. Nothing
// here is Heddle's.
package trace

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracegrpc"
	"go.opentelemetry.io/otel/propagation"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
)

// Start sets OpenTelemetry's global tracer provider and propagator (W3C Trace Context).
// Spans go to OTEL_EXPORTER_OTLP_ENDPOINT under the name OTEL_SERVICE_NAME; without an
// endpoint no spans are made, but the context of others is passed on. The returned
// function sends what is left and takes two seconds at most.
func Start(ctx context.Context, log *slog.Logger) (shutdown func(), err error) {
	otel.SetTextMapPropagator(propagation.TraceContext{})
	otel.SetErrorHandler(otel.ErrorHandlerFunc(func(err error) { log.Debug("traces", "error", err) }))
	if os.Getenv("OTEL_EXPORTER_OTLP_ENDPOINT") == "" {
		return func() {}, nil
	}
	// It connects when there is something to send: the collector may come later.
	exporter, err := otlptracegrpc.New(ctx)
	if err != nil {
		return nil, fmt.Errorf("start tracing: %w", err)
	}
	provider := sdktrace.NewTracerProvider(sdktrace.WithBatcher(exporter, sdktrace.WithBatchTimeout(time.Second)))
	otel.SetTracerProvider(provider)
	return func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
		defer cancel()
		if err := provider.Shutdown(ctx); err != nil {
			log.Debug("send the last spans", "error", err)
		}
	}, nil
}
