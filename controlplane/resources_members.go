package controlplane

import (
	"maps"
	"net/netip"
	"slices"

	"github.com/heddle-mesh/heddle/controlplane/mesh"
	"github.com/heddle-mesh/heddle/controlplane/translate"
)

// members lists the endpoints of a service: its workloads, or what its slices say.
func (b *build) members(s *mesh.Service) *translate.Members {
	if s.Sliced {
		return b.sliced(s)
	}
	out := new(translate.Members)
	for _, w := range b.snapshot.Members(s) {
		out.Members = append(out.Members, registered(s, w))
	}
	return out
}

// registered is a workload that registered itself as a member of a service.
func registered(s *mesh.Service, w *mesh.Workload) translate.Member {
	m := translate.Member{
		Hostname: w.Name.Name, Identity: w.Identity.String(), Addresses: w.Addresses,
		Ready: w.Ready, Zone: w.Zone, Node: w.Node,
	}
	for _, port := range s.Ports {
		for _, wp := range w.Ports {
			if wp.App == port.Target {
				m.Ports = append(m.Ports, translate.MemberPort{Service: port.Port, Number: wp.Peer})
				break
			}
		}
	}
	return m
}

// sliced lists the endpoints of slices, by name. What two slices say of one workload is
// one member: they differ in the family of addresses, or in the ports.
func (b *build) sliced(s *mesh.Service) *translate.Members {
	out := new(translate.Members)
	index := map[string]int{} // of members by workload
	for _, slice := range b.snapshot.SlicesOf(s.Name) {
		ports := slicePorts(s, slice)
		for _, e := range slice.Endpoints {
			m := b.member(s, slice, e, ports)
			if i, ok := index[e.Workload]; ok && e.Workload != "" && out.Members[i].Identity == m.Identity {
				join(&out.Members[i], m)
				continue
			}
			index[e.Workload] = len(out.Members)
			out.Members = append(out.Members, m)
		}
	}
	return out
}

func (b *build) member(s *mesh.Service, slice *mesh.EndpointSlice, e mesh.Endpoint, ports []translate.MemberPort) translate.Member {
	m := translate.Member{
		Hostname: e.Hostname, Addresses: e.Addresses[:min(1, len(e.Addresses))], Ports: ports,
		Ready: e.Ready || s.PublishNotReady, Zone: e.Zone, Node: e.Node,
	}
	if w := b.workloadAt(slice.Namespace, e); w != nil {
		m.Identity = w.Identity.String()
		m.Ports = opened(ports, w.Open)
	}
	return m
}

// opened marks the ports that a workload's proxy leaves alone.
func opened(ports []translate.MemberPort, open []uint16) []translate.MemberPort {
	if len(open) == 0 {
		return ports
	}
	ports = slices.Clone(ports) // they are all endpoints' of the slice
	for i := range ports {
		ports[i].Open = slices.Contains(open, ports[i].Number)
	}
	return ports
}

// workloadAt is the workload of the mesh at an endpoint, or nil. An address that the
// workload does not have is not its own: another pod may have it already.
func (b *build) workloadAt(namespace string, e mesh.Endpoint) *mesh.Workload {
	w, ok := b.snapshot.Workloads.Lookup(mesh.Name{Namespace: namespace, Name: e.Workload})
	if !ok || !slices.ContainsFunc(e.Addresses, func(a netip.Addr) bool { return slices.Contains(w.Addresses, a) }) {
		return nil
	}
	return w
}

// slicePorts resolves the ports of a service in one of its slices, in the service's order.
func slicePorts(s *mesh.Service, slice *mesh.EndpointSlice) []translate.MemberPort {
	var out []translate.MemberPort
	for _, port := range s.Ports {
		for _, p := range slice.Ports {
			if p.Name == port.Name {
				out = append(out, translate.MemberPort{Service: port.Port, Number: p.Number})
				break
			}
		}
	}
	return out
}

// join adds to a member what another slice says of it.
func join(m *translate.Member, more translate.Member) {
	m.Addresses, m.Ports = slices.Clone(m.Addresses), slices.Clone(m.Ports) // they are the slice's
	for _, a := range more.Addresses {
		if !slices.Contains(m.Addresses, a) {
			m.Addresses = append(m.Addresses, a)
		}
	}
	for _, p := range more.Ports {
		if !slices.Contains(m.Ports, p) {
			m.Ports = append(m.Ports, p)
		}
	}
	m.Ready = m.Ready || more.Ready
}

// instances are the addresses of the mesh's workloads in headless services that have
// slices, as prefixes of one address.
func (b *build) instances() []netip.Prefix {
	var out []netip.Prefix
	for _, s := range b.snapshot.Services.All() {
		if !s.Headless || !s.Sliced {
			continue
		}
		for _, w := range b.snapshot.Members(s) {
			for _, a := range w.Addresses {
				out = append(out, netip.PrefixFrom(a, a.BitLen()))
			}
		}
	}
	return out
}

// served is a port of a workload that a service leads to.
type served struct {
	mesh.WorkloadPort
	service *mesh.Service
	port    mesh.ServicePort
}

// serves lists the ports of w that services lead to, those of the first service first.
func (b *build) serves(w *mesh.Workload, services []*mesh.Service) []served {
	var out []served
	for _, s := range services {
		if s.Sliced {
			out = append(out, b.servesSliced(w, s)...)
			continue
		}
		for _, wp := range w.Ports {
			for _, port := range s.Ports {
				if port.Target == wp.App {
					out = append(out, served{wp, s, port})
				}
			}
		}
	}
	return out
}

func (b *build) servesSliced(w *mesh.Workload, s *mesh.Service) []served {
	var out []served
	for _, slice := range b.snapshot.SlicesOf(s.Name) {
		if !slices.ContainsFunc(slice.Endpoints, func(e mesh.Endpoint) bool { return e.Workload == w.Name.Name }) {
			continue
		}
		for _, p := range slicePorts(s, slice) {
			port, _ := s.Port(p.Service)
			next := served{mesh.WorkloadPort{App: p.Number, Peer: p.Number}, s, port}
			if !slices.Contains(out, next) { // a slice of the other family says the same
				out = append(out, next)
			}
		}
	}
	return out
}

func identities(m *translate.Members) translate.Identities {
	var uris []string
	for i := range m.Members {
		if id := m.Members[i].Identity; id != "" {
			uris = append(uris, id)
		}
	}
	return translate.NewIdentities(uris...)
}

// outside reports whether some member's place for a port is outside of the mesh.
func outside(m *translate.Members, port uint16) bool {
	return slices.ContainsFunc(m.Members, func(m translate.Member) bool { return m.Outside(port) })
}

// zones lists the zones of members, each once.
func zones(m *translate.Members) []string {
	found := map[string]bool{}
	for i := range m.Members {
		if zone := m.Members[i].Zone; zone != "" {
			found[zone] = true
		}
	}
	return slices.Sorted(maps.Keys(found))
}

// nodes lists the nodes of members with their zones.
func nodes(m *translate.Members) map[string]string {
	found := map[string]string{}
	for i := range m.Members {
		if node := m.Members[i].Node; node != "" {
			found[node] = m.Members[i].Zone
		}
	}
	return found
}

func sameMembers(a, b *translate.Members) bool {
	return slices.EqualFunc(a.Members, b.Members, translate.Member.Equal)
}
