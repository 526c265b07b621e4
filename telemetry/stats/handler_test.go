package stats_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"github.com/heddle-mesh/heddle/install/parts/partstest"
	"github.com/heddle-mesh/heddle/proxy/envoy"
	"github.com/heddle-mesh/heddle/telemetry/stats"
)

func logger(t *testing.T) *slog.Logger { return slog.New(slog.NewTextHandler(t.Output(), nil)) }

// scrape asks a handler and checks that the answer is one valid exposition.
func scrape(t *testing.T, h http.Handler) map[string]*dto.MetricFamily {
	t.Helper()
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/metrics", nil))
	if w.Code != http.StatusOK || !strings.HasPrefix(w.Header().Get("Content-Type"), "text/plain") {
		t.Fatalf("%d %v: %.500s", w.Code, w.Header(), w.Body)
	}
	seen := map[string]bool{}
	for line := range strings.Lines(w.Body.String()) {
		if name, ok := strings.CutPrefix(line, "# TYPE "); ok {
			name, _, _ = strings.Cut(name, " ")
			if seen[name] {
				t.Errorf("two TYPE lines for %s", name)
			}
			seen[name] = true
		}
	}
	parser := expfmt.NewTextParser(model.LegacyValidation)
	families, err := parser.TextToMetricFamilies(w.Body)
	if err != nil {
		t.Fatal(err)
	}
	return families
}

func own(t *testing.T) *prometheus.Registry {
	r := stats.NewRegistry()
	c := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "heddle_things_total", Help: "Things."}, []string{"kind"})
	c.WithLabelValues("mine").Add(3)
	if err := r.Register(c); err != nil {
		t.Fatal(err)
	}
	return r
}

func answers(text string, err error) func(context.Context) ([]byte, error) {
	return func(context.Context) ([]byte, error) { return []byte(text), err }
}

func TestMerge(t *testing.T) {
	for _, c := range []struct {
		name, text string
		err        error
		up         float64
	}{
		{"good", "# TYPE envoy_x counter\nenvoy_x 1\n", nil, 1},
		{"same name", "# TYPE heddle_things_total gauge\nheddle_things_total 1\n", nil, 1},
		{"absent", "", errors.New("connection refused"), 0},
		{"nonsense", "<html>no\n", nil, 0},
		{"too big", "# " + strings.Repeat("x", 2000) + "\n", nil, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			families := scrape(t, stats.Handler(stats.Config{Own: own(t), Envoy: answers(c.text, c.err), MaxBytes: 1000, Log: logger(t)}))
			if got := families["heddle_envoy_up"].GetMetric()[0].GetGauge().GetValue(); got != c.up {
				t.Errorf("heddle_envoy_up is %v, want %v", got, c.up)
			}
			if got := families["heddle_things_total"].GetMetric(); len(got) != 1 || got[0].GetCounter().GetValue() != 3 {
				t.Errorf("heddle_things_total has %v", got)
			}
			if families["go_goroutines"] == nil || families["process_open_fds"] == nil {
				t.Error("the process' own metrics are missing")
			}
			if got := families["envoy_x"] != nil; got != (c.name == "good") {
				t.Errorf("envoy_x there: %v", got)
			}
		})
	}
}

func TestSlowEnvoyDoesNotHoldUp(t *testing.T) {
	slow := func(ctx context.Context) ([]byte, error) {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	families := scrape(t, stats.Handler(stats.Config{Own: own(t), Envoy: slow, Timeout: 10 * time.Millisecond, Log: logger(t)}))
	if families["heddle_envoy_up"].GetMetric()[0].GetGauge().GetValue() != 0 || families["heddle_things_total"] == nil {
		t.Errorf("%v", families)
	}
}

func TestWithoutEnvoy(t *testing.T) {
	h := stats.Handler(stats.Config{Own: own(t), Log: logger(t)})
	if families := scrape(t, h); families["heddle_envoy_up"] != nil || families["heddle_things_total"] == nil {
		t.Errorf("%v", families)
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(http.MethodPost, "/metrics", nil))
	if w.Code != http.StatusMethodNotAllowed {
		t.Errorf("POST gives %d", w.Code)
	}
}

func TestRealEnvoy(t *testing.T) {
	bin, dir := partstest.Envoy(t), t.TempDir()
	socket, file := filepath.Join(dir, "admin.sock"), filepath.Join(dir, "envoy.json")
	config := fmt.Appendf(nil, `{"admin": {"address": {"pipe": {"path": %q, "mode": 384}}},
		"static_resources": {"clusters": [{"name": "somewhere", "connect_timeout": "1s"}]}}`, socket)
	if err := os.WriteFile(file, config, 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(bin, "-c", file, "--disable-hot-restart", "--concurrency", "1", "-l", "off")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		cmd.Process.Kill()
		cmd.Wait()
	}()
	admin := envoy.NewAdmin(socket)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for admin.Ready(ctx) != nil {
		select {
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
			t.Fatal(admin.Ready(t.Context()))
		}
	}
	h := stats.Handler(stats.Config{Own: own(t), Envoy: admin.Prometheus, Log: logger(t)})
	families := scrape(t, h)
	if families["heddle_envoy_up"].GetMetric()[0].GetGauge().GetValue() != 1 || families["envoy_server_live"].GetType() != dto.MetricType_GAUGE {
		t.Errorf("Envoy's metrics are missing among %d", len(families))
	}
}

func FuzzMerge(f *testing.F) {
	f.Add([]byte("# TYPE envoy_x counter\nenvoy_x{a=\"b\"} 1\n# TYPE envoy_h histogram\nenvoy_h_bucket{le=\"1\"} 1\nenvoy_h_bucket{le=\"+Inf\"} 1\nenvoy_h_sum 1\nenvoy_h_count 1\n"))
	f.Add([]byte("# TYPE go_goroutines untyped\ngo_goroutines 1\n"))
	registry := stats.NewRegistry()
	f.Fuzz(func(t *testing.T, text []byte) {
		h := stats.Handler(stats.Config{
			Own: registry, Log: slog.New(slog.DiscardHandler),
			Envoy: func(context.Context) ([]byte, error) { return bytes.Clone(text), nil },
		})
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
		if w.Code != http.StatusOK {
			t.Fatalf("%d: %s", w.Code, w.Body)
		}
		parser := expfmt.NewTextParser(model.LegacyValidation)
		if _, err := parser.TextToMetricFamilies(w.Body); err != nil {
			t.Errorf("%q became an answer that is not valid: %v", text, err)
		}
	})
}
