package tracing_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/propagation"
	"google.golang.org/grpc"

	"github.com/heddle-mesh/heddle/install/parts/partstest"
	"github.com/heddle-mesh/heddle/telemetry/tracing"
)

// TestJaeger sends a trace of two services the whole way - SDK, the agent's
// forwarder, the real Jaeger - while Jaeger starts only after the spans ended.
func TestJaeger(t *testing.T) {
	bin, dir := partstest.Jaeger(t), t.TempDir()
	j := tracing.Jaeger{OTLP: freeAddr(t), Query: freeAddr(t), MaxTraces: 100}

	f, _ := start(t, tracing.ForwarderConfig{Endpoint: j.OTLP.String()})
	agent := grpc.NewServer()
	f.Register(agent)
	l, err := net.Listen("unix", filepath.Join(dir, "agent.sock"))
	if err != nil {
		t.Fatal(err)
	}
	go agent.Serve(l)
	defer agent.Stop()

	carrier := propagation.MapCarrier{}
	traceID := span(t, "web", "unix://"+l.Addr().String(), carrier)
	if carrier["traceparent"] == "" {
		t.Error("no traceparent was passed on")
	}
	if got := span(t, "api", "unix://"+l.Addr().String(), carrier); got != traceID {
		t.Errorf("the second service is in trace %s, not %s", got, traceID)
	}

	startJaeger(t, bin, j)
	var answer struct {
		Data []struct {
			Spans     []struct{ OperationName string }
			Processes map[string]struct{ ServiceName string }
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	for len(answer.Data) == 0 || len(answer.Data[0].Spans) < 2 {
		if err := getJSON(ctx, fmt.Sprintf("http://%s/api/traces/%s", j.Query, traceID), &answer); ctx.Err() != nil {
			t.Fatalf("the trace does not arrive: %v, %+v", err, answer)
		}
		select {
		case <-time.After(50 * time.Millisecond):
		case <-ctx.Done():
		}
	}
	services := map[string]bool{}
	for _, p := range answer.Data[0].Processes {
		services[p.ServiceName] = true
	}
	if !services["web"] || !services["api"] {
		t.Errorf("the trace has services %v", services)
	}
}

// span makes one span of a service, as a child of what carrier holds.
func span(t *testing.T, service, endpoint string, carrier propagation.MapCarrier) (traceID string) {
	t.Helper()
	provider, shutdown, err := tracing.Start(t.Context(), tracing.Config{
		Service: service, Endpoint: endpoint, Insecure: true, SamplingRatio: 1, Log: logger(t),
		Attributes: []attribute.KeyValue{attribute.String("host.name", "here")},
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx := tracing.Propagator().Extract(t.Context(), carrier)
	ctx, s := provider.Tracer("test").Start(ctx, "call "+service)
	tracing.Propagator().Inject(ctx, carrier)
	s.End()
	if err := shutdown(t.Context()); err != nil {
		t.Error(err)
	}
	return s.SpanContext().TraceID().String()
}

func startJaeger(t *testing.T, bin string, j tracing.Jaeger) {
	t.Helper()
	config, err := j.YAML()
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "jaeger.yaml")
	if err := os.WriteFile(file, config, 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(bin, "--config", file)
	cmd.Stdout, cmd.Stderr = t.Output(), t.Output()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
}

func getJSON(ctx context.Context, url string, into any) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	return json.NewDecoder(resp.Body).Decode(into)
}

func freeAddr(t *testing.T) netip.AddrPort {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return netip.MustParseAddrPort(l.Addr().String())
}

func TestStart(t *testing.T) {
	if _, _, err := tracing.Start(t.Context(), tracing.Config{Service: "x", SamplingRatio: 2}); err == nil {
		t.Error("a sampling ratio of 2 is no error")
	}
	provider, shutdown, err := tracing.Start(t.Context(), tracing.Config{Service: "x"})
	if err != nil {
		t.Fatal(err)
	}
	_, s := provider.Tracer("test").Start(t.Context(), "x")
	if s.IsRecording() {
		t.Error("spans are made with nowhere to go")
	}
	if err := shutdown(t.Context()); err != nil {
		t.Error(err)
	}
	if _, err := (tracing.Jaeger{}).YAML(); err == nil {
		t.Error("no addresses are no error")
	}
}
