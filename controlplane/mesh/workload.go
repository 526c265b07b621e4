package mesh

import (
	"net/netip"

	"github.com/heddle-mesh/heddle/identity/spiffeid"
)

// Capture is how a workload's traffic gets to its proxy.
type Capture string

// The capture modes. Transparent includes its rootless form: to a proxy they are the same.
const (
	Transparent Capture = "transparent"
	Explicit    Capture = "explicit"
	// AtGateway captures nothing: the workload is a proxy of the Gateway of its identity's
	// namespace and service account.
	AtGateway Capture = "gateway"
)

// Workload is one running instance with its sidecar.
type Workload struct {
	Meta
	// Identity is what the workload was attested to be.
	Identity spiffeid.ID
	Labels   map[string]string
	// Zone and Node are where it runs; either may be empty.
	Zone, Node string
	// Addresses are where peers reach it, at most one of each family.
	Addresses []netip.Addr
	Ports     []WorkloadPort
	Capture   Capture
	// Upstreams are the local addresses that an explicit sidecar opens.
	Upstreams []Upstream
	// Pod workloads are pods: their endpoints, ports and readiness are those of the slices
	// that name them, and Ports and Ready are not looked at.
	Pod bool
	// Open are ports of the application that its proxy leaves alone: others speak to them
	// in the clear.
	Open []uint16
	// Ready is whether the application takes requests. A workload that is not ready
	// but registered is draining or starting: it gets no new requests.
	Ready bool
}

// WorkloadPort is a port on which the application listens.
type WorkloadPort struct {
	// App is the port that services mean by their target port: the application's own.
	App uint16
	// Peer is the port that other proxies dial. Transparent sidecars have it equal to App.
	Peer uint16
	// Local is where the application really listens on loopback, where that is not App:
	// without capture two instances of a service share one loopback. 0 = App.
	Local uint16
}

// Upstream is "localhost:Local is Service:Port" of an explicit sidecar.
type Upstream struct {
	Service Name
	Port    uint16
	Local   netip.AddrPort
}

// Account is the service account of the workload's identity.
func (w *Workload) Account() Name { return Name{w.Identity.Namespace(), w.Identity.ServiceAccount()} }

// Gateway is the gateway that the workload is a proxy of; the zero Name: none.
func (w *Workload) Gateway() Name {
	if w.Capture != AtGateway {
		return Name{}
	}
	return w.Account()
}
