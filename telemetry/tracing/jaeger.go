package tracing

import (
	"fmt"
	"net/netip"

	"go.yaml.in/yaml/v3"
)

// Jaeger is the configuration of a Jaeger that keeps traces in memory.
type Jaeger struct {
	OTLP      netip.AddrPort // takes spans, over gRPC
	Query     netip.AddrPort // the query API, over HTTP
	MaxTraces int            // the oldest are forgotten
}

// DefaultJaeger listens on loopback at the usual ports.
func DefaultJaeger() Jaeger {
	return Jaeger{
		OTLP:      netip.MustParseAddrPort("127.0.0.1:4317"),
		Query:     netip.MustParseAddrPort("127.0.0.1:16686"),
		MaxTraces: 50_000, // 10 spans of 1 KB each: half a GB at worst
	}
}

// YAML is the file for Jaeger 2's --config. Jaeger then listens at the two
// addresses and, for its gRPC query API, which cannot be turned off, at a free
// port of loopback.
func (j Jaeger) YAML() ([]byte, error) {
	if !j.OTLP.IsValid() || !j.Query.IsValid() || j.MaxTraces < 1 {
		return nil, fmt.Errorf("configure Jaeger: invalid addresses or size: %+v", j)
	}
	type m = map[string]any
	out, err := yaml.Marshal(m{
		"receivers": m{"otlp": m{"protocols": m{"grpc": m{"endpoint": j.OTLP.String()}}}},
		"exporters": m{"jaeger_storage_exporter": m{"trace_storage": "memory"}},
		"extensions": m{
			"jaeger_storage": m{"backends": m{"memory": m{"memory": m{"max_traces": j.MaxTraces}}}},
			"jaeger_query": m{
				"storage":        m{"traces": "memory"},
				"http":           m{"endpoint": j.Query.String()},
				"grpc":           m{"endpoint": "127.0.0.1:0"},
				"enable_tracing": false, // of itself
			},
		},
		"service": m{
			"extensions": []string{"jaeger_storage", "jaeger_query"},
			"pipelines":  m{"traces": m{"receivers": []string{"otlp"}, "exporters": []string{"jaeger_storage_exporter"}}},
			"telemetry":  m{"metrics": m{"level": "none"}, "logs": m{"level": "warn"}},
		},
	})
	if err != nil {
		return nil, fmt.Errorf("configure Jaeger: %w", err)
	}
	return out, nil
}
