package main

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/propagation"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	oteltrace "go.opentelemetry.io/otel/trace"
)

const traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

// TestSpans asks an API whose database is away: the answer is an error, and both spans
// are in the caller's trace. (With a database: the shop's test beside this package.)
func TestSpans(t *testing.T) {
	spans := tracetest.NewInMemoryExporter()
	otel.SetTracerProvider(sdktrace.NewTracerProvider(sdktrace.WithSyncer(spans)))
	otel.SetTextMapPropagator(propagation.TraceContext{})
	// Nothing listens at port 1.
	documents, err := openDocuments(t.Context(), "postgres://shop@127.0.0.1:1/shop")
	if err != nil {
		t.Fatal(err)
	}
	defer documents.close()
	ctx, cancel := context.WithCancel(t.Context())
	cancel() // no second attempt
	h := newHandler(documents, "v2", slog.New(slog.DiscardHandler))
	r := httptest.NewRequestWithContext(ctx, "GET", "/documents/linen", nil)
	r.Header.Set("traceparent", traceparent)
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	if w.Code != http.StatusServiceUnavailable || w.Header().Get("Shop-Version") != "v2" {
		t.Errorf("answer %d, %v", w.Code, w.Header())
	}
	got := spans.GetSpans()
	if len(got) != 2 {
		t.Fatalf("%d spans, want 2", len(got))
	}
	query, request := got[0], got[1]
	if route := attributes(request).Value("http.route"); route != "/documents/{id}" {
		t.Errorf("request: http.route = %q", route)
	}
	if request.SpanKind != oteltrace.SpanKindServer || request.Parent.SpanID().String() != "b7ad6b7169203331" {
		t.Errorf("request: kind %s, parent %s", request.SpanKind, request.Parent.SpanID())
	}
	if query.Name != "SELECT documents" || query.SpanKind != oteltrace.SpanKindClient || query.Parent.SpanID() != request.SpanContext.SpanID() {
		t.Errorf("query %q: kind %s, parent %s", query.Name, query.SpanKind, query.Parent.SpanID())
	}
	for key, want := range map[attribute.Key]string{
		"db.system.name": "postgresql", "db.namespace": "shop", "db.operation.name": "SELECT", "db.collection.name": "documents",
	} {
		if value := attributes(query).Value(key); value != want {
			t.Errorf("query: %s = %q, want %q", key, value, want)
		}
	}
}

type attributes tracetest.SpanStub

func (a attributes) Value(key attribute.Key) string {
	for _, kv := range a.Attributes {
		if kv.Key == key {
			return kv.Value.String()
		}
	}
	return ""
}

// TestRefused are requests that do not get to the database.
func TestRefused(t *testing.T) {
	documents, err := openDocuments(t.Context(), "postgres://shop@127.0.0.1:1/shop")
	if err != nil {
		t.Fatal(err)
	}
	defer documents.close()
	server := httptest.NewServer(newHandler(documents, "v1", slog.New(slog.DiscardHandler)))
	defer server.Close()
	for _, c := range []struct {
		method, path, body string
		status             int
		want               string
	}{
		{"GET", "/healthz", "", 200, "ok"},
		{"GET", "/readyz", "", 503, "does not answer"},
		{"GET", "/version", "", 200, "v1"},
		{"GET", "/nowhere", "", 404, ""},
		{"GET", "/documents/..%2fetc", "", 404, "no such document"},
		{"GET", "/documents/A'--", "", 404, "no such document"},
		{"POST", "/version", "", 405, ""},
		{"DELETE", "/documents/UPPER", "", 404, "no such document"},
		{"PUT", "/documents/UPPER", "{}", 400, "lower case"},
		{"PUT", "/documents/x", "[]", 400, "not a JSON object"},
		{"PUT", "/documents/x", "null", 400, "not a JSON object"},
		{"PUT", "/documents/x", "{", 400, "not a JSON object"},
		{"PUT", "/documents/x", `{"a":"` + strings.Repeat("x", maxDocument) + `"}`, 413, "64 KiB"},
	} {
		req, err := http.NewRequestWithContext(t.Context(), c.method, server.URL+c.path, strings.NewReader(c.body))
		if err != nil {
			t.Fatal(err)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		if resp.StatusCode != c.status || !strings.Contains(string(body), c.want) {
			t.Errorf("%s %s: %d %s, want %d with %q", c.method, c.path, resp.StatusCode, body, c.status, c.want)
		}
		if c.status >= 400 && c.want != "" && !json.Valid(body) {
			t.Errorf("%s %s: the error is not JSON: %s", c.method, c.path, body)
		}
	}
}

func TestLost(t *testing.T) {
	for _, c := range []struct {
		err  error
		want bool
	}{
		{io.ErrUnexpectedEOF, true},
		{&pgconn.PgError{Code: "57P01"}, true},  // admin_shutdown
		{&pgconn.PgError{Code: "57P03"}, true},  // cannot_connect_now
		{&pgconn.PgError{Code: "23514"}, false}, // check_violation
		{pgx.ErrNoRows, false},
		{errors.Join(errors.New("query"), pgx.ErrNoRows), false},
	} {
		if got := lost(c.err); got != c.want {
			t.Errorf("lost(%v) = %t", c.err, got)
		}
	}
}
