package e2e

import (
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"time"
)

// metrics: every sidecar has those of its proxy and of its agent on one endpoint, and the
// control plane has one; "heddle up" shows them all to the machine.
func metrics(p *project) {
	for _, workload := range []string{"web-0", "api-v1-0", "db-0"} {
		for name, want := range map[string]float64{
			"envoy_server_live": 1, "heddle_controlplane_connected": 1, "heddle_workload_ready": 1, "heddle_svid_renewal_failing": 0,
		} {
			if got := p.metric(workload, name); got != want {
				p.t.Errorf("%s of %s is %v, want %v", name, workload, got, want)
			}
		}
		left := time.Until(time.Unix(int64(p.metric(workload, "heddle_svid_expiry_timestamp_seconds")), 0))
		if left <= 0 || left > time.Hour {
			p.t.Errorf("the SVID of %s is valid for %s", workload, left)
		}
	}
	p.scrape()
}

// scrape reads the project's metrics as Prometheus on the machine would: a list of what
// there is, and each of that.
func (p *project) scrape() {
	var groups []struct {
		Targets []string
		Labels  map[string]string
	}
	if err := json.Unmarshal(p.get(p.t, "http://127.0.0.1:15020/targets"), &groups); err != nil {
		p.t.Fatal(err)
	}
	want := map[string][]string{
		// Of each of four sidecars the Envoy's stream and the agent's.
		"controlplane": {"heddle_mesh_workloads 4", "heddle_xds_proxies 8", "heddle_xds_nacks_total 0", "go_goroutines "},
	}
	for _, workload := range []string{"api-v1-0", "api-v2-0", "db-0", "web-0"} {
		want[workload] = []string{"envoy_server_live 1", "heddle_workload_ready 1", "go_goroutines "}
	}
	for _, group := range groups {
		name := group.Labels["workload"]
		if name == "api-v1-0" && group.Labels["service"] != "api" {
			p.t.Errorf("labels of %s: %v", name, group.Labels)
		}
		text := string(p.get(p.t, "http://"+group.Targets[0]+group.Labels["__metrics_path__"]))
		for _, line := range want[name] {
			if !strings.Contains(text, "\n"+line) {
				p.t.Errorf("the metrics of %s lack %q: %.300s", name, line, text)
			}
		}
		delete(want, name)
	}
	if len(want) > 0 {
		p.t.Errorf("no target for %v", slices.Collect(maps.Keys(want)))
	}
}
