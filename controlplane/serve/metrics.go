package serve

import (
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
)

// collector gives the control plane's own metrics: what its parts count anyway.
type collector struct {
	cp      *controlPlane
	metrics []metric
}

type metric struct {
	desc  *prometheus.Desc
	kind  prometheus.ValueType
	value func() float64
}

func newCollector(cp *controlPlane) *collector {
	c := &collector{cp: cp}
	counter := func(name, help string, n *atomic.Int64) {
		c.add(name, help, prometheus.CounterValue, func() float64 { return float64(n.Load()) })
	}
	s := cp.xds.Stats()
	counter("heddle_xds_connects_total", "Configuration streams that proxies and agents have opened.", &s.Connects)
	counter("heddle_xds_responses_total", "Configuration responses sent.", &s.Responses)
	counter("heddle_xds_resources_total", "Resources sent in configuration responses.", &s.Resources)
	counter("heddle_xds_removals_total", "Removals of resources sent.", &s.Removals)
	counter("heddle_xds_bytes_total", "Bytes of configuration responses sent.", &s.Bytes)
	counter("heddle_xds_acks_total", "Configuration responses that were taken.", &s.Acks)
	counter("heddle_xds_nacks_total", "Configuration responses that were refused.", &s.Nacks)
	gauge := func(name, help string, value func() float64) { c.add(name, help, prometheus.GaugeValue, value) }
	gauge("heddle_xds_proxies", "Configuration streams that are open.", func() float64 { return float64(len(cp.xds.Status())) })
	gauge("heddle_mesh_services", "Services.", func() float64 { return float64(cp.pipeline.Snapshot().Services.Len()) })
	gauge("heddle_mesh_workloads", "Registered workloads.", func() float64 { return float64(cp.pipeline.Snapshot().Workloads.Len()) })
	gauge("heddle_mesh_revision", "Revision of the mesh.", func() float64 { return float64(cp.pipeline.Snapshot().Revision) })
	return c
}

func (c *collector) add(name, help string, kind prometheus.ValueType, value func() float64) {
	c.metrics = append(c.metrics, metric{prometheus.NewDesc(name, help, nil, nil), kind, value})
}

// Describe implements prometheus.Collector.
func (c *collector) Describe(descs chan<- *prometheus.Desc) {
	for _, m := range c.metrics {
		descs <- m.desc
	}
}

// Collect implements prometheus.Collector.
func (c *collector) Collect(metrics chan<- prometheus.Metric) {
	for _, m := range c.metrics {
		metrics <- prometheus.MustNewConstMetric(m.desc, m.kind, m.value())
	}
}
