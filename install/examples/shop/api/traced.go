package main

import (
	"context"
	"net/http"
	"os"
	"strings"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"
)

// traced makes the span of a request, a child of the caller's, by the semantic
// conventions for HTTP servers. A page can tell by the headers who has answered.
func (h *handler) traced(next http.HandlerFunc) http.Handler {
	tracer := otel.Tracer("shop/api")
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ctx := otel.GetTextMapPropagator().Extract(r.Context(), propagation.HeaderCarrier(r.Header))
		_, route, _ := strings.Cut(r.Pattern, " ") // without the method
		ctx, span := tracer.Start(ctx, r.Pattern, trace.WithSpanKind(trace.SpanKindServer), trace.WithAttributes(
			semconv.HTTPRequestMethodKey.String(r.Method), semconv.URLPath(r.URL.Path),
			semconv.HTTPRoute(route), semconv.ServiceVersion(h.version)))
		defer span.End()
		w.Header().Set("Shop-Version", h.version)
		w.Header().Set("Shop-Workload", os.Getenv("HEDDLE_WORKLOAD"))
		w.Header().Set("Shop-Zone", os.Getenv("HEDDLE_ZONE"))
		ctx, cancel := context.WithTimeout(ctx, queryTimeout)
		defer cancel()
		answer := &recorder{ResponseWriter: w, status: http.StatusOK}
		next(answer, r.WithContext(ctx))
		span.SetAttributes(semconv.HTTPResponseStatusCode(answer.status))
		if answer.status >= 500 {
			span.SetStatus(codes.Error, http.StatusText(answer.status))
		}
	})
}

// recorder remembers the status.
type recorder struct {
	http.ResponseWriter
	status int
}

func (r *recorder) WriteHeader(status int) {
	r.status = status
	r.ResponseWriter.WriteHeader(status)
}
