package manifest

import "github.com/heddle-mesh/heddle/controlplane/mesh"

type configSpec struct {
	TrustDomain      string       `json:"trustDomain,omitempty"`
	ClusterDomain    string       `json:"clusterDomain,omitempty"`
	Tracing          *tracingSpec `json:"tracing,omitempty"`
	AccessLog        *bool        `json:"accessLog,omitempty"`
	Locality         *locality    `json:"locality,omitempty"`
	OutlierDetection *outlierSpec `json:"outlierDetection,omitempty"`
	ConnectTimeout   string       `json:"connectTimeout,omitempty" is:"duration"`
}

type tracingSpec struct {
	SamplingPercent *float64 `json:"samplingPercent,omitempty" min:"0" max:"100"`
}

type locality struct {
	PreferZone *bool `json:"preferZone,omitempty"`
}

type outlierSpec struct {
	ConsecutiveErrors  *uint32 `json:"consecutiveErrors,omitempty" min:"0" max:"1000000"`
	BaseEjectionTime   string  `json:"baseEjectionTime,omitempty" is:"duration"`
	MaxEjectionPercent *uint32 `json:"maxEjectionPercent,omitempty" min:"0" max:"100"`
}

func (o *outlierSpec) check(c cursor) {
	if o.BaseEjectionTime != "" && duration(o.BaseEjectionTime) == 0 && durationRule(o.BaseEjectionTime) == "" {
		c.at("baseEjectionTime").errorf("is 0; give at least 1ms, or consecutiveErrors: 0 to turn ejection off")
	}
}

func (*outlierSpec) validations() []validation {
	return []validation{{"!has(self.baseEjectionTime) || duration(self.baseEjectionTime) > duration('0s')",
		"baseEjectionTime is 0; give at least 1ms, or consecutiveErrors: 0 to turn ejection off"}}
}

func (*configSpec) validations() []validation {
	return []validation{{"!has(self.connectTimeout) || duration(self.connectTimeout) > duration('0s')", "connectTimeout is 0; give at least 1ms"}}
}

func (s *configSpec) checkSpec(c cursor, m metadata) {
	o := c.r.opts
	if m.Name != "" && m.Name != "mesh" {
		c.r.at(c, "metadata.name").errorf("%s; the mesh has one MeshConfig and its name is mesh", quote(m.Name))
	}
	if s.TrustDomain != "" && s.TrustDomain != o.TrustDomain {
		c.at("trustDomain").errorf("%s is not the control plane's %q; it cannot change while identities are out, remove the field", quote(s.TrustDomain), o.TrustDomain)
	}
	if s.ClusterDomain != "" && s.ClusterDomain != o.ClusterDomain {
		c.at("clusterDomain").errorf("%s is not the control plane's %q; set it where the control plane is started, remove the field", quote(s.ClusterDomain), o.ClusterDomain)
	}
	if s.ConnectTimeout != "" && durationRule(s.ConnectTimeout) == "" && duration(s.ConnectTimeout) == 0 {
		c.at("connectTimeout").errorf("is 0; give at least 1ms")
	}
}

// at is a place outside of c's own mapping, with c's line.
func (r *reading) at(c cursor, path string) cursor { return cursor{r, c.node, path} }

func (s *configSpec) build(meta mesh.Meta, _ metadata, o Options) mesh.Object {
	out := mesh.DefaultMeshConfig()
	out.Meta, out.TrustDomain, out.ClusterDomain = meta, o.TrustDomain, o.ClusterDomain
	if s.Tracing != nil {
		set(&out.TraceSampling, s.Tracing.SamplingPercent)
	}
	set(&out.AccessLog, s.AccessLog)
	if s.Locality != nil {
		set(&out.PreferZone, s.Locality.PreferZone)
	}
	if d := s.OutlierDetection; d != nil {
		set(&out.Outlier.Consecutive, d.ConsecutiveErrors)
		set(&out.Outlier.MaxPercent, d.MaxEjectionPercent)
		if d.BaseEjectionTime != "" {
			out.Outlier.BaseEjection = duration(d.BaseEjectionTime)
		}
	}
	if s.ConnectTimeout != "" {
		out.ConnectTimeout = duration(s.ConnectTimeout)
	}
	return out
}

// set puts the value in place of the default where there is one.
func set[T any](place *T, value *T) {
	if value != nil {
		*place = *value
	}
}
