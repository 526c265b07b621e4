package supervise_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/heddle-mesh/heddle/install/parts/partstest"
	"github.com/heddle-mesh/heddle/proxy/envoy"
	"github.com/heddle-mesh/heddle/proxy/supervise"
)

// A running is a sidecar that a test has started.
type running struct {
	*supervise.Sidecar
	stop context.CancelFunc
	done chan int
}

func run(t *testing.T, c supervise.SidecarConfig) running {
	t.Helper()
	s := supervise.NewSidecar(c, logger(t))
	ctx, cancel := context.WithCancel(limited(t))
	r := running{s, cancel, make(chan int, 1)}
	go func() {
		code, err := s.Run(ctx)
		if err != nil {
			t.Logf("sidecar: %v", err)
		}
		r.done <- code
	}()
	t.Cleanup(s.Kill)
	return r
}

func ready(s supervise.Status) bool { return s.State == supervise.Ready }

func await(t *testing.T, p *supervise.Process, ok func(supervise.Status) bool) supervise.Status {
	t.Helper()
	status, err := p.Await(limited(t), ok)
	if err != nil {
		t.Fatal(err)
	}
	return status
}

func TestAppStartsAfterEnvoyIsReady(t *testing.T) {
	dir := t.TempDir()
	gate, up := filepath.Join(dir, "gate"), filepath.Join(dir, "up")
	r := run(t, supervise.SidecarConfig{
		Envoy: supervise.Spec{Name: "envoy", Start: starts("sleep"), Ready: fileThere(gate)},
		App:   supervise.Spec{Name: "app", Start: starts("term", up), Ready: fileThere(up)},
	})
	proxy, app := r.Processes()
	status := await(t, proxy, func(s supervise.Status) bool { return s.State == supervise.Starting && s.Message != "" })
	if s, _ := app.Status(); s.State != supervise.Stopped || s.PID != 0 {
		t.Errorf("the app is %+v while Envoy is %+v", s, status)
	}
	mustTouch(t, gate)
	await(t, app, ready)
	r.stop()
	if code := <-r.done; code != 7 {
		t.Errorf("code is %d, want the app's 7", code)
	}
	if s, _ := proxy.Status(); s.State != supervise.Stopped {
		t.Errorf("Envoy is %+v", s)
	}
}

func mustTouch(t *testing.T, path string) {
	t.Helper()
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestSidecarEndsWithItsApp(t *testing.T) {
	for _, c := range []struct {
		start func(context.Context) (*exec.Cmd, error)
		code  int
	}{
		{starts("exit", "0"), 0},
		{starts("exit", "5"), 5},
		{starts("crash"), 137},
		{func(context.Context) (*exec.Cmd, error) { return exec.Command("/nonexistent"), nil }, 127},
	} {
		r := run(t, supervise.SidecarConfig{
			Envoy: supervise.Spec{Name: "envoy", Start: starts("sleep")},
			App:   supervise.Spec{Name: "app", Start: c.start},
		})
		if code := <-r.done; code != c.code {
			t.Errorf("code is %d, want %d", code, c.code)
		}
		proxy, _ := r.Processes()
		if s, _ := proxy.Status(); s.State != supervise.Stopped || s.PID != 0 {
			t.Errorf("Envoy is %+v", s)
		}
	}
}

func TestSidecarWithoutEnvoy(t *testing.T) {
	r := run(t, supervise.SidecarConfig{
		Envoy: supervise.Spec{Name: "envoy", Start: func(context.Context) (*exec.Cmd, error) { return exec.Command("/nonexistent"), nil }},
		App:   supervise.Spec{Name: "app", Start: starts("sleep")},
	})
	if code := <-r.done; code != 127 {
		t.Errorf("code is %d, want 127", code)
	}
}

func TestDrainComesBeforeStop(t *testing.T) {
	const drainTime = 50 * time.Millisecond
	up := filepath.Join(t.TempDir(), "up")
	drained := make(chan time.Time, 1)
	r := run(t, supervise.SidecarConfig{
		Envoy:     supervise.Spec{Name: "envoy", Start: starts("sleep")},
		App:       supervise.Spec{Name: "app", Start: starts("term", up), Ready: fileThere(up)},
		Drain:     func(context.Context) error { drained <- time.Now(); return nil },
		DrainTime: drainTime,
	})
	proxy, app := r.Processes()
	await(t, app, ready)
	r.stop()
	await(t, proxy, func(s supervise.Status) bool { return s.State == supervise.Draining })
	end := await(t, app, func(s supervise.Status) bool { return s.State != supervise.Ready })
	if took := end.Since.Sub(<-drained); took < drainTime {
		t.Errorf("the app was stopped %s after the drain, not %s", took, drainTime)
	}
	if code := <-r.done; code != 7 {
		t.Errorf("code is %d", code)
	}
}

// TestRealEnvoy kills a real Envoy under an application, sees it return, and
// drains it: its clients are told to leave while it still answers.
func TestRealEnvoy(t *testing.T) {
	bin, dir := partstest.Envoy(t), t.TempDir()
	socket, port := filepath.Join(dir, "admin.sock"), freePort(t)
	file := filepath.Join(dir, "envoy.json")
	if err := os.WriteFile(file, fmt.Appendf(nil, staticEnvoy, socket, port), 0o600); err != nil {
		t.Fatal(err)
	}
	admin := envoy.NewAdmin(socket)
	up := filepath.Join(dir, "up")
	r := run(t, supervise.SidecarConfig{
		Envoy: supervise.Spec{Name: "envoy", Ready: admin.Ready, Start: func(context.Context) (*exec.Cmd, error) {
			cmd := exec.Command(bin, "-c", file, "--disable-hot-restart", "--concurrency", "1", "--drain-time-s", "1", "-l", "error")
			cmd.Stderr = supervise.NewLines(t.Output()).Writer("envoy | ")
			return cmd, nil
		}},
		App:       supervise.Spec{Name: "app", Start: starts("term", up), Ready: fileThere(up)},
		Drain:     admin.DrainListeners,
		DrainTime: time.Second,
	})
	proxy, app := r.Processes()
	appPID := await(t, app, ready).PID
	if resp := get(t, port); resp.StatusCode != 418 || resp.Close {
		t.Errorf("Envoy answers %s, close %v", resp.Status, resp.Close)
	}

	first := await(t, proxy, ready)
	if err := syscall.Kill(first.PID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	second := await(t, proxy, func(s supervise.Status) bool { return s.State == supervise.Ready && s.PID != first.PID })
	if second.Restarts != 1 {
		t.Errorf("Envoy is %+v", second)
	}
	if s, _ := app.Status(); s.PID != appPID || s.State != supervise.Ready {
		t.Errorf("the app is %+v, was pid %d", s, appPID)
	}

	r.stop()
	await(t, proxy, func(s supervise.Status) bool { return s.State == supervise.Draining })
	if resp := get(t, port); resp.StatusCode != 418 {
		t.Errorf("the draining Envoy answers %s", resp.Status)
	}
	if code := <-r.done; code != 7 {
		t.Errorf("code is %d", code)
	}
}

const staticEnvoy = `{
  "admin": {"address": {"pipe": {"path": %q, "mode": 384}}},
  "static_resources": {"listeners": [{
    "name": "web", "address": {"socket_address": {"address": "127.0.0.1", "port_value": %d}},
    "filter_chains": [{"filters": [{"name": "hcm", "typed_config": {
      "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
      "stat_prefix": "web",
      "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"],
        "routes": [{"match": {"prefix": "/"}, "direct_response": {"status": 418}}]}]},
      "http_filters": [{"name": "router", "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"}}]
    }}]}]
  }]}
}`

func freePort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

func get(t *testing.T, port int) *http.Response {
	t.Helper()
	resp, err := http.Get(fmt.Sprintf("http://127.0.0.1:%d/", port))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		t.Fatal(err)
	}
	return resp
}
