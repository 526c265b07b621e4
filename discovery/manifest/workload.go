package manifest

import (
	"net/netip"

	"github.com/heddle-mesh/heddle/controlplane/mesh"
	"github.com/heddle-mesh/heddle/identity/spiffeid"
)

type workloadSpec struct {
	Identity  string         `json:"identity" need:"the SPIFFE ID" is:"identity"`
	Zone      string         `json:"zone,omitempty" max:"253" is:"labelValue"`
	Node      string         `json:"node,omitempty" max:"253" is:"subdomain"`
	Addresses []string       `json:"addresses" need:"an address" min:"1" max:"2" is:"address"`
	Ports     []workloadPort `json:"ports,omitempty" max:"64"`
	Capture   string         `json:"capture" need:"transparent or explicit" in:"transparent|explicit"`
	Upstreams []upstream     `json:"upstreams,omitempty" max:"256"`
	Ready     bool           `json:"ready"`
}

type workloadPort struct {
	App  uint16 `json:"app" need:"the application's port" min:"1" max:"65535"`
	Peer uint16 `json:"peer,omitempty" min:"1" max:"65535"`
	// Local is where the application listens if not on App.
	Local uint16 `json:"local,omitempty" min:"1" max:"65535"`
}

type upstream struct {
	Namespace string `json:"namespace,omitempty" is:"label1123"`
	Service   string `json:"service" need:"a service's name" is:"label1035"`
	Port      uint16 `json:"port" need:"the service's port" min:"1" max:"65535"`
	Local     string `json:"local" need:"a local address with a port" is:"addrPort"`
}

func (s *workloadSpec) checkSpec(c cursor, _ metadata) {
	four, six := 0, 0
	for _, text := range s.Addresses {
		if a, err := netip.ParseAddr(text); err == nil && a.Is4() {
			four++
		} else if err == nil {
			six++
		}
	}
	if four > 1 || six > 1 {
		c.at("addresses").errorf("has two of one family; give at most one IPv4 and one IPv6 address")
	}
	apps, peers := make(map[uint16]bool), make(map[uint16]bool)
	for i, p := range s.Ports {
		if p.App != 0 && (apps[p.App] || peers[p.peer()]) {
			c.at("ports").index(i).errorf("has a port that stands before already; remove one of the two")
		}
		apps[p.App], peers[p.peer()] = true, true
	}
	locals := make(map[string]bool)
	for i, u := range s.Upstreams {
		if locals[u.Local] && u.Local != "" {
			c.at("upstreams").index(i).at("local").errorf("%s is taken by an upstream before; choose another port", quote(u.Local))
		}
		locals[u.Local] = true
	}
}

func (p workloadPort) peer() uint16 {
	if p.Peer == 0 {
		return p.App
	}
	return p.Peer
}

func (s *workloadSpec) build(meta mesh.Meta, m metadata, _ Options) mesh.Object {
	id, _ := spiffeid.Parse(s.Identity) // this and the addresses are checked by the schema
	w := &mesh.Workload{Meta: meta, Identity: id, Labels: m.Labels, Zone: s.Zone, Node: s.Node,
		Capture: mesh.Capture(s.Capture), Ready: s.Ready}
	for _, text := range s.Addresses {
		a, _ := netip.ParseAddr(text)
		w.Addresses = append(w.Addresses, a)
	}
	for _, p := range s.Ports {
		w.Ports = append(w.Ports, mesh.WorkloadPort{App: p.App, Peer: p.peer(), Local: p.Local})
	}
	for _, u := range s.Upstreams {
		local, _ := netip.ParseAddrPort(u.Local)
		w.Upstreams = append(w.Upstreams, mesh.Upstream{Service: serviceRef(u.Namespace, u.Service, m), Port: u.Port, Local: local})
	}
	return w
}

// EncodeWorkload writes a workload as a canonical document. Parse with
// Options.Workloads gives the same workload, and checks it.
func EncodeWorkload(w *mesh.Workload) ([]byte, error) {
	s := &workloadSpec{Identity: w.Identity.String(), Zone: w.Zone, Node: w.Node,
		Capture: string(w.Capture), Ready: w.Ready}
	for _, a := range w.Addresses {
		s.Addresses = append(s.Addresses, a.String())
	}
	for _, p := range w.Ports {
		s.Ports = append(s.Ports, workloadPort{p.App, p.Peer, p.Local})
	}
	for _, u := range w.Upstreams {
		s.Upstreams = append(s.Upstreams, upstream{u.Service.Namespace, u.Service.Name, u.Port, u.Local.String()})
	}
	return marshal(&document{APIVersion: heddleV1, Kind: string(mesh.KindWorkload), Spec: s,
		Metadata: metadata{Name: w.Name.Name, Namespace: w.Namespace, Labels: w.Labels}})
}
