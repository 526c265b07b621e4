package mesh

import "time"

// MeshConfig is the mesh's one object of settings for everybody. The zero value is not
// meant for use; DefaultMeshConfig has the defaults and their reasons.
type MeshConfig struct {
	Meta
	TrustDomain   string
	ClusterDomain string
	// TraceSampling is the share of requests that start a trace, 0 to 100 percent.
	TraceSampling float64
	// AccessLog turns on the proxies' JSON access log.
	AccessLog bool
	// PreferZone keeps requests in the caller's zone as far as every endpoint of a service
	// still gets the same share of what a caller's replicas send, in whatever zones they are.
	PreferZone bool
	Outlier    Outlier
	// ConnectTimeout bounds a TCP connect to an endpoint.
	ConnectTimeout time.Duration
}

// Outlier is when an endpoint that answers badly is left alone for a while.
type Outlier struct {
	// Consecutive gateway errors (502, 503, 504, resets, failed connects) that eject an
	// endpoint; 0 turns ejection off.
	Consecutive uint32
	// BaseEjection is the first time out; it grows with every ejection.
	BaseEjection time.Duration
	// MaxPercent of a service's endpoints may be out at once.
	MaxPercent uint32
}

// DefaultMeshConfig is the mesh as it is when nobody has written a MeshConfig.
func DefaultMeshConfig() *MeshConfig {
	return &MeshConfig{
		Meta:          Meta{Ref: Ref{KindMeshConfig, Name{"", "mesh"}}},
		TrustDomain:   "mesh.local",
		ClusterDomain: "cluster.local", // what Kubernetes uses unless told otherwise
		TraceSampling: 1,               // percent: costs 13 % of the proxies' base, 100 costs 28 %
		AccessLog:     true,
		PreferZone:    true, // traffic between zones costs money and latency
		Outlier: Outlier{
			Consecutive:  5,
			BaseEjection: 30 * time.Second,
			MaxPercent:   50, // never so many that the rest is crushed
		},
		ConnectTimeout: 5 * time.Second,
	}
}
