package xdstest

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/heddle-mesh/heddle/install/parts/partstest"
)

// Envoy is a running Envoy that gets clusters and listeners by delta ADS.
type Envoy struct {
	t     testing.TB
	admin *http.Client
	cmd   *exec.Cmd
	done  chan struct{}
	log   lockedBuffer
}

// StartEnvoy runs an Envoy against the ADS server on a Unix socket, until Stop or the
// end of the test. Its log is shown if the test fails.
func StartEnvoy(t testing.TB, node, socket string) *Envoy {
	t.Helper()
	dir := t.TempDir()
	admin := filepath.Join(dir, "admin.sock")
	if len(admin) > 100 { // sun_path
		short, err := os.MkdirTemp("", "envoy")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { os.RemoveAll(short) })
		admin = filepath.Join(short, "admin.sock")
	}
	config, err := json.Marshal(bootstrap(node, socket, admin))
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "bootstrap.json")
	if err := os.WriteFile(file, config, 0o600); err != nil {
		t.Fatal(err)
	}
	e := &Envoy{t: t, done: make(chan struct{})}
	e.cmd = exec.Command(partstest.Envoy(t), "--disable-hot-restart", "--concurrency", "1", "--log-level", "info", "-c", file)
	e.cmd.Stdout, e.cmd.Stderr = &e.log, &e.log
	if err := e.cmd.Start(); err != nil {
		t.Fatalf("start envoy: %v", err)
	}
	go func() {
		defer close(e.done)
		e.cmd.Wait()
	}()
	e.admin = &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", admin)
	}}}
	t.Cleanup(func() {
		e.Stop()
		if t.Failed() {
			t.Logf("envoy %s said:\n%s", node, e.log.String())
		}
	})
	return e
}

// Stop kills the Envoy, as a crash would, and waits for its end.
func (e *Envoy) Stop() {
	e.cmd.Process.Kill()
	<-e.done
}

// Admin gets a page of the admin interface; "" if it does not answer (yet).
func (e *Envoy) Admin(path string) string {
	r, err := e.admin.Get("http://envoy" + path)
	if err != nil {
		return ""
	}
	defer r.Body.Close()
	body, _ := io.ReadAll(r.Body)
	return string(body)
}

// Stat returns a counter or gauge, "" if it is not there.
func (e *Envoy) Stat(name string) string {
	for line := range strings.Lines(e.Admin("/stats?filter=^" + name + "$")) {
		if _, v, ok := strings.Cut(strings.TrimSpace(line), ": "); ok {
			return v
		}
	}
	return ""
}

// Eventually asks again and again until the condition holds, for at most 20 seconds.
func Eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("not within 20 seconds: %s", what)
		}
	}
}

func bootstrap(node, socket, admin string) map[string]any {
	pipe := func(path string) map[string]any { return map[string]any{"pipe": map[string]any{"path": path}} }
	source := map[string]any{"ads": map[string]any{}, "resource_api_version": "V3"}
	return map[string]any{
		"node":  map[string]any{"id": node, "cluster": "test"},
		"admin": map[string]any{"address": pipe(admin)},
		"dynamic_resources": map[string]any{
			"ads_config": map[string]any{
				"api_type": "DELTA_GRPC", "transport_api_version": "V3",
				"grpc_services": []any{map[string]any{"envoy_grpc": map[string]any{"cluster_name": "ads"}}},
			},
			"cds_config": source, "lds_config": source,
		},
		"static_resources": map[string]any{"clusters": []any{map[string]any{
			"name": "ads", "type": "STATIC", "connect_timeout": "1s",
			"load_assignment": map[string]any{"cluster_name": "ads", "endpoints": []any{map[string]any{
				"lb_endpoints": []any{map[string]any{"endpoint": map[string]any{"address": pipe(socket)}}},
			}}},
			"typed_extension_protocol_options": map[string]any{
				"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": map[string]any{
					"@type":                "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
					"explicit_http_config": map[string]any{"http2_protocol_options": map[string]any{}},
				},
			},
		}}},
	}
}

// lockedBuffer collects output of a process while a test may read it.
type lockedBuffer struct {
	mu sync.Mutex // guards b
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// Get makes an HTTP request to a listener at a Unix socket and returns "STATUS BODY", or
// the error.
func Get(t testing.TB, socket string) string {
	t.Helper()
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", socket)
	}}
	defer transport.CloseIdleConnections()
	r, err := (&http.Client{Transport: transport, Timeout: 5 * time.Second}).Get("http://test/")
	if err != nil {
		return err.Error()
	}
	defer r.Body.Close()
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return err.Error()
	}
	return strings.TrimSpace(r.Status[:3] + " " + string(body))
}
