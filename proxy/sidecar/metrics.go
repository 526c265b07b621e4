package sidecar

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/heddle-mesh/heddle/proxy/supervise"
)

// collector gives the agent's own metrics: what its status says, as Prometheus wants it.
type collector struct{ status func() Status }

var (
	svidExpiry = prometheus.NewDesc("heddle_svid_expiry_timestamp_seconds",
		"When the workload's SVID expires, in seconds since 1970; 0 before the first.", nil, nil)
	svidFailing = prometheus.NewDesc("heddle_svid_renewal_failing",
		"1 while the last attempt to renew the SVID failed.", nil, nil)
	connected = prometheus.NewDesc("heddle_controlplane_connected",
		"1 while the configuration stream to the control plane is open; without it the last good configuration is used.", nil, nil)
	ready = prometheus.NewDesc("heddle_workload_ready",
		"1 while the workload is announced as ready for requests.", nil, nil)
	restarts = prometheus.NewDesc("heddle_process_restarts_total",
		"How often a process of the sidecar was started again.", []string{"process"}, nil)
)

// Describe implements prometheus.Collector.
func (c collector) Describe(descs chan<- *prometheus.Desc) { prometheus.DescribeByCollect(c, descs) }

// Collect implements prometheus.Collector.
func (c collector) Collect(metrics chan<- prometheus.Metric) {
	status := c.status()
	gauge := func(d *prometheus.Desc, v float64) {
		metrics <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v)
	}
	expiry := 0.0
	if !status.Identity.Expires.IsZero() {
		expiry = float64(status.Identity.Expires.Unix())
	}
	gauge(svidExpiry, expiry)
	gauge(svidFailing, one(status.Identity.LastError != ""))
	gauge(connected, one(status.ControlPlane))
	gauge(ready, one(status.Ready))
	for process, s := range map[string]supervise.Status{"envoy": status.Envoy, "app": status.App} {
		metrics <- prometheus.MustNewConstMetric(restarts, prometheus.CounterValue, float64(s.Restarts), process)
	}
}

func one(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
