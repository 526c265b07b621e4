// Package stats makes the one Prometheus endpoint of a process: its own metrics
// and, in an agent, those of its Envoy, whose admin interface nobody else can
// reach. It decides nothing about which statistics Envoy keeps; that is in
// proxy/bootstrap.
package stats

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
)

// NewRegistry returns a registry with the metrics that every Go process has.
func NewRegistry() *prometheus.Registry {
	r := prometheus.NewRegistry()
	r.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return r
}

// Config says what an endpoint serves.
type Config struct {
	Own prometheus.Gatherer
	// Envoy returns Envoy's statistics in Prometheus' text format, as
	// [envoy.Admin.Prometheus] does; nil for a process without an Envoy.
	Envoy func(ctx context.Context) ([]byte, error)
	// Timeout limits the wait for Envoy; 0 is 5 s, half of a usual scrape timeout.
	Timeout time.Duration
	// MaxBytes limits Envoy's answer; 0 is 32 MiB, some 300,000 lines.
	MaxBytes int
	Log      *slog.Logger
}

// maxScrapes is how many requests are served at once; more get 503.
const maxScrapes = 4

// Handler serves both sets of metrics as one valid exposition: every family
// once, sorted by name, with one TYPE line. Without an answer from Envoy the
// own metrics are served all the same, and heddle_envoy_up is 0. Of a family that
// both have, only ours is served.
func Handler(c Config) http.Handler {
	if c.Timeout <= 0 {
		c.Timeout = 5 * time.Second
	}
	if c.MaxBytes <= 0 {
		c.MaxBytes = 32 << 20
	}
	return &handler{config: c, slots: make(chan struct{}, maxScrapes)}
}

type handler struct {
	config Config
	slots  chan struct{}
}

func (h *handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		http.Error(w, "only GET and HEAD", http.StatusMethodNotAllowed)
		return
	}
	select {
	case h.slots <- struct{}{}:
		defer func() { <-h.slots }()
	default:
		http.Error(w, "too many scrapes at once", http.StatusServiceUnavailable)
		return
	}
	families := h.gather(r.Context())
	var body bytes.Buffer
	format := expfmt.NewFormat(expfmt.TypeTextPlain)
	encoder := expfmt.NewEncoder(&body, format)
	for _, name := range slices.Sorted(maps.Keys(families)) {
		if err := encoder.Encode(families[name]); err != nil {
			h.config.Log.Error("metrics cannot be written", "metric", name, "error", err)
			http.Error(w, "cannot write metric "+name, http.StatusInternalServerError)
			return
		}
	}
	w.Header().Set("Content-Type", string(format))
	_, _ = w.Write(body.Bytes()) // the scraper may have left
}

func (h *handler) gather(ctx context.Context) map[string]*dto.MetricFamily {
	own, err := h.config.Own.Gather()
	if err != nil { // what could be gathered is in own nevertheless
		h.config.Log.Warn("some of our own metrics are missing", "error", err)
	}
	families := make(map[string]*dto.MetricFamily, len(own))
	for _, family := range own {
		families[family.GetName()] = family
	}
	if h.config.Envoy == nil {
		return families
	}
	ctx, cancel := context.WithTimeout(ctx, h.config.Timeout)
	defer cancel()
	theirs, err := h.askEnvoy(ctx)
	up := 1.0
	if err != nil {
		up = 0
		h.config.Log.Debug("no metrics from Envoy", "error", err) // it is told by heddle_envoy_up
	}
	const upName = "heddle_envoy_up"
	families[upName] = gauge(upName, "Whether Envoy's own metrics are part of this answer.", up)
	for name, family := range theirs {
		if _, taken := families[name]; !taken {
			families[name] = family
		}
	}
	return families
}

var errTooBig = errors.New("the answer is too big")

// askEnvoy reads and checks Envoy's statistics.
func (h *handler) askEnvoy(ctx context.Context) (map[string]*dto.MetricFamily, error) {
	text, err := h.config.Envoy(ctx)
	if err != nil {
		return nil, err
	}
	if len(text) > h.config.MaxBytes {
		return nil, fmt.Errorf("read Envoy's metrics: %w: %d bytes", errTooBig, len(text))
	}
	return parse(text)
}

// parse reads Prometheus' text format. Families whose names are not those of
// Prometheus' classic character set make it fail, as scrapers would.
func parse(text []byte) (map[string]*dto.MetricFamily, error) {
	parser := expfmt.NewTextParser(model.LegacyValidation)
	families, err := parser.TextToMetricFamilies(bytes.NewReader(text))
	if err != nil {
		return nil, fmt.Errorf("read Envoy's metrics: %w", err)
	}
	return families, nil
}

func gauge(name, help string, value float64) *dto.MetricFamily {
	return &dto.MetricFamily{
		Name: &name, Help: &help, Type: dto.MetricType_GAUGE.Enum(),
		Metric: []*dto.Metric{{Gauge: &dto.Gauge{Value: &value}}},
	}
}
