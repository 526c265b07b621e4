package local

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"
)

// controlPlaneName is the control plane's among the names of workloads in metrics.
const controlPlaneName = "controlplane"

// serveMetrics opens the project's metrics to the machine, where the configuration says so:
// those of each workload, which otherwise are inside its own network, and the control
// plane's.
//
//	GET /targets       what there is, as Prometheus' HTTP service discovery reads it
//	GET /metrics/NAME  of one workload, or of "controlplane"
func (s *supervisor) serveMetrics() (stop func(), err error) {
	address := s.Config.Metrics
	if address == "" {
		return func() {}, nil
	}
	var l net.Listener
	if f := s.Files[address]; f != nil { // opened outside of the user namespace
		l, err = net.FileListener(f)
	} else if l, err = net.Listen("tcp", address); err != nil {
		err = endpoint{address, metricsFix}.inUse(err)
	}
	if err != nil {
		return nil, fmt.Errorf("serve metrics: %w", err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /targets", s.serveTargets)
	mux.HandleFunc("GET /metrics/{name}", s.serveMetricsOf)
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second, WriteTimeout: 30 * time.Second, MaxHeaderBytes: 16 << 10}
	s.group.Go(func() {
		if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			s.Log.Error("serve metrics", "address", address, "error", err)
		}
	})
	return func() { server.Close() }, nil
}

// targetGroup is an element of the list that Prometheus' HTTP service discovery reads:
// https://prometheus.io/docs/prometheus/latest/http_sd/.
type targetGroup struct {
	Targets []string          `json:"targets"`
	Labels  map[string]string `json:"labels"`
}

// serveTargets lists what is configured, running or not: Prometheus tells of what is down.
func (s *supervisor) serveTargets(w http.ResponseWriter, r *http.Request) {
	group := func(name string, labels map[string]string) targetGroup {
		labels["__metrics_path__"] = "/metrics/" + name
		return targetGroup{Targets: []string{r.Host}, Labels: labels} // as whoever asks reaches us
	}
	out := []targetGroup{group(controlPlaneName, map[string]string{"workload": controlPlaneName})}
	for _, w := range s.workloads {
		labels := map[string]string{"workload": w.Name, "service": w.Service.Service}
		if w.Zone != "" {
			labels["zone"] = w.Zone
		}
		out = append(out, group(w.Name, labels))
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(out)
}

// serveMetricsOf passes on what a sidecar or the control plane answers.
func (s *supervisor) serveMetricsOf(w http.ResponseWriter, r *http.Request) {
	client, host := s.metricsOf(r.PathValue("name"))
	if client == nil {
		http.Error(w, fmt.Sprintf("there is no workload %q; GET /targets lists them", r.PathValue("name")), http.StatusNotFound)
		return
	}
	req, err := http.NewRequestWithContext(r.Context(), http.MethodGet, "http://"+host+"/metrics", nil)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	req.Header.Set("Accept", r.Header.Get("Accept"))
	resp, err := client.Do(req)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadGateway)
		return
	}
	defer resp.Body.Close()
	w.Header().Set("Content-Type", resp.Header.Get("Content-Type"))
	w.WriteHeader(resp.StatusCode)
	_, _ = io.Copy(w, resp.Body)
}

// metricsOf says how to reach the metrics of a name; nil where there is none.
func (s *supervisor) metricsOf(name string) (client *http.Client, host string) {
	if name == controlPlaneName {
		return &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}, metricsAddress
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, m := range s.processes {
		if m.workload == name {
			return unixClient(m.status), "sidecar"
		}
	}
	return nil, ""
}
