package mesh

import "net/netip"

// Protocol is what a service port speaks, as far as the mesh cares.
type Protocol string

// The protocols, named as Kubernetes' appProtocol values are.
const (
	TCP   Protocol = "tcp"   // bytes; the safe default, server-first protocols included
	HTTP  Protocol = "http"  // HTTP/1.1, upgrades to WebSocket included
	HTTP2 Protocol = "http2" // HTTP/2 with prior knowledge (h2c)
	GRPC  Protocol = "grpc"  // HTTP/2 with gRPC's statuses
)

// IsHTTP reports whether routes and HTTP policies apply to the protocol.
func (p Protocol) IsHTTP() bool { return p != TCP }

// Service is a name under which workloads are reached. It is Kubernetes' Service.
type Service struct {
	Meta
	// VirtualIPs are the stable addresses of the service, at most one of each family;
	// none when it is headless.
	VirtualIPs []netip.Addr
	// Selector chooses the workloads of the service's namespace that serve it, by their
	// labels. An empty selector chooses none.
	Selector map[string]string
	Ports    []ServicePort
	// Headless services have no virtual IP: DNS answers with their endpoints.
	Headless bool
	// PublishNotReady keeps endpoints that are not ready in DNS.
	PublishNotReady bool
	// Sliced services have the endpoints that EndpointSlices say, and Selector is not
	// looked at: so it is on Kubernetes, whose own controllers make the slices.
	Sliced bool
	// NodeLocal keeps requests on the caller's node (internalTrafficPolicy: Local).
	NodeLocal bool
	// Prefer is which endpoints are asked before others (trafficDistribution).
	Prefer Preference
	// ExternalName makes the service an alias of a name outside; it has no endpoints.
	ExternalName string
}

// Preference is which endpoints a service's callers ask first.
type Preference string

// The preferences. PreferDefault leaves it to MeshConfig; the others ask what is further
// away only as far as nothing nearer is healthy, however busy that is.
const (
	PreferDefault Preference = ""
	PreferZone    Preference = "PreferSameZone"
	PreferNode    Preference = "PreferSameNode"
)

// ServicePort is one port of a service.
type ServicePort struct {
	Name     string
	Port     uint16
	Target   uint16 // the workloads' port; 0 only for a Sliced service, whose slices say it
	Protocol Protocol
}

// Port finds the port of that number.
func (s *Service) Port(number uint16) (ServicePort, bool) {
	for _, p := range s.Ports {
		if p.Port == number {
			return p, true
		}
	}
	return ServicePort{}, false
}

// Selects reports whether a workload of those labels in that namespace serves s.
func (s *Service) Selects(namespace string, labels map[string]string) bool {
	if len(s.Selector) == 0 || namespace != s.Namespace {
		return false
	}
	for k, v := range s.Selector {
		if labels[k] != v {
			return false
		}
	}
	return true
}
