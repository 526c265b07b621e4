package mesh

import "net/netip"

// EndpointSlice is some of the endpoints of a Sliced service, in the service's namespace.
// It is Kubernetes' discovery.k8s.io/v1 EndpointSlice. A service with addresses of both
// families has slices of both; endpoints with the same Workload are one endpoint then.
type EndpointSlice struct {
	Meta
	// Service is the service's name in the slice's namespace.
	Service string
	// Ports hold for all endpoints of the slice.
	Ports     []EndpointPort
	Endpoints []Endpoint
}

// ServiceName is the service that the slice belongs to.
func (s *EndpointSlice) ServiceName() Name { return Name{s.Namespace, s.Service} }

// Workloads are the workloads that the slice names, each once.
func (s *EndpointSlice) Workloads() []Name {
	var out []Name
	for _, e := range s.Endpoints {
		if e.Workload != "" {
			out = append(out, Name{s.Namespace, e.Workload})
		}
	}
	return distinct(out)
}

// EndpointPort is where endpoints listen for the service port of that name. Ports of
// other protocols than TCP have no place in the model.
type EndpointPort struct {
	Name   string // of the service's port; "" is the only port
	Number uint16
}

// Endpoint is one place where a service is served.
type Endpoint struct {
	// Addresses are the same endpoint's, all of one family; the first is used.
	Addresses []netip.Addr
	// Hostname is the endpoint's name under that of a headless service, or "".
	Hostname string
	// Workload is the pod in the slice's namespace, or "". Where the mesh has a workload
	// of that name and address, the endpoint speaks mutual TLS as that workload; without,
	// it is outside of the mesh.
	Workload string
	// Ready endpoints get new requests. Serving ones that are not Ready are ending: what
	// is open stays.
	Ready, Serving bool
	// Zone and Node are where it runs; either may be empty.
	Zone, Node string
}
