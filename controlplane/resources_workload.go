package controlplane

import (
	"net/netip"
	"reflect"
	"slices"

	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"

	"github.com/heddle-mesh/heddle/controlplane/mesh"
	"github.com/heddle-mesh/heddle/controlplane/translate"
	"github.com/heddle-mesh/heddle/controlplane/xds"
)

// workload wants what one proxy serves: its inbound side, and an explicit sidecar's
// upstreams.
func (b *build) workload(w *mesh.Workload) {
	if w.Capture == mesh.AtGateway {
		return // what it serves is its Gateway's
	}
	services := b.snapshot.ServicesOf(w)
	policies := b.snapshot.PoliciesFor(w.Namespace, services)
	origins := []mesh.Object{w}
	for _, s := range services {
		origins = append(origins, s)
	}
	guarded := slices.Clone(origins) // what says who may come, too
	for _, p := range policies {
		guarded = append(guarded, p)
	}
	inbound := keep(b, "inbound", 0, b.inbound(w, services, policies), sameInbound)
	in := translate.InboundIn{Inbound: inbound, TrustDomain: b.snapshot.Config.TrustDomain, TraceSampling: b.snapshot.Config.TraceSampling}
	variant := WorkloadVariant(w.Name)
	var needs []xds.Key
	for _, p := range inbound.Ports {
		want(b, xds.Key{Type: translate.ClusterType, Name: translate.LocalName(p.App), Variant: variant},
			localIn(w, p), translate.Local, origins)
		if p.Protocol.IsHTTP() {
			want(b, xds.Key{Type: translate.RoutesType, Name: translate.InboundRoutesName(p), Variant: variant},
				translate.InboundRoutesIn{Inbound: inbound, App: p.App}, translate.InboundRoutes, guarded)
		}
		needs = append(needs, leadsTo(p))
	}
	if w.Capture == mesh.Explicit {
		b.explicit(w, in, origins, guarded)
		return
	}
	if slices.ContainsFunc(inbound.Ports, func(p translate.InboundPort) bool { return !p.Protocol.IsHTTP() }) {
		origins = guarded
	}
	want(b, xds.Key{Type: translate.ListenerType, Name: translate.InboundName, Variant: variant}, in, translate.InboundListener, origins, needs...)
	b.addressed(w, services)
}

// explicit wants an explicit sidecar's listeners. Origins are the inbound ones', guarded
// those of a port that does not speak HTTP.
func (b *build) explicit(w *mesh.Workload, in translate.InboundIn, origins, guarded []mesh.Object) {
	variant := WorkloadVariant(w.Name)
	type portIn struct {
		translate.InboundIn
		peer uint16
	}
	for _, p := range in.Inbound.Ports {
		from := origins
		if !p.Protocol.IsHTTP() {
			from = guarded
		}
		want(b, xds.Key{Type: translate.ListenerType, Name: translate.ExplicitName(p.Peer), Variant: variant},
			portIn{in, p.Peer}, func(portIn) *listenerv3.Listener { return translate.ExplicitListener(in, p) }, from, leadsTo(p))
	}
	for _, u := range w.Upstreams {
		s, ok := b.snapshot.Services.Lookup(u.Service)
		if !ok {
			continue // the listener appears with the service; until then connections are refused
		}
		if port, ok := s.Port(u.Port); ok {
			needs := xds.Key{Type: translate.ClusterType, Name: translate.PortName(u.Service, u.Port)}
			if port.Protocol.IsHTTP() {
				needs.Type = translate.RoutesType
			}
			want(b, xds.Key{Type: translate.ListenerType, Name: translate.UpstreamName(u.Local), Variant: variant},
				translate.UpstreamIn{Service: u.Service, Port: u.Port, Protocol: port.Protocol, Local: u.Local, TraceSampling: b.snapshot.Config.TraceSampling},
				translate.Upstream, []mesh.Object{w, s}, needs)
		}
	}
}

// localIn is how a port of the application is reached from its proxy.
func localIn(w *mesh.Workload, p translate.InboundPort) translate.LocalIn {
	in := translate.LocalIn{Port: p.App, Listen: p.Local, Protocol: p.Protocol}
	if w.Pod && len(w.Addresses) > 0 {
		in.Address = w.Addresses[0]
	}
	return in
}

// leadsTo is what a port's filter chain needs.
func leadsTo(p translate.InboundPort) xds.Key {
	if p.Protocol.IsHTTP() {
		return xds.Key{Type: translate.RoutesType, Name: translate.InboundRoutesName(p)}
	}
	return xds.Key{Type: translate.ClusterType, Name: translate.LocalName(p.App)}
}

// addressed wants the clusters of a workload's own addresses, by which the clients of a
// headless service reach it.
func (b *build) addressed(w *mesh.Workload, services []*mesh.Service) {
	self := keep(b, "self", 0, &translate.Members{Members: []translate.Member{{Identity: w.Identity.String()}}}, sameMembers)
	for _, to := range b.serves(w, services) {
		if !to.service.Headless {
			continue
		}
		b.groups = []string{to.service.Name.String()}
		for _, addr := range w.Addresses {
			name := translate.DestinationName(addr, to.App)
			cluster := b.clusterIn(to.service, to.port, self, name)
			cluster.Sliced = false // this endpoint is of the mesh
			in := translate.InstanceIn{Cluster: cluster, Address: netip.AddrPortFrom(addr, to.App)}
			want(b, xds.Key{Type: translate.ClusterType, Name: name}, in, translate.Instance, []mesh.Object{to.service, w})
		}
	}
	b.groups = nil
}

// inbound describes what a workload serves: every port it registered that a service
// leads to, as that service says. Where two services disagree on the protocol of one
// port, the first by name is right; the status of the other says so.
func (b *build) inbound(w *mesh.Workload, services []*mesh.Service, policies []*mesh.AuthorizationPolicy) *translate.Inbound {
	out := &translate.Inbound{Capture: w.Capture, IPv6: hasIPv6(w.Addresses)}
	if len(w.Addresses) > 0 {
		out.Address = w.Addresses[0].String()
	}
	index := map[uint16]int{} // of out.Ports, by the application's port
	reached := map[uint16][]translate.Backend{}
	for _, to := range b.serves(w, services) {
		reached[to.App] = append(reached[to.App], translate.Backend{Service: to.service.Name, Port: to.port.Port})
		if _, ok := index[to.App]; ok {
			continue
		}
		index[to.App] = len(out.Ports)
		out.Ports = append(out.Ports, translate.InboundPort{
			App: to.App, Peer: to.Peer, Local: to.Local,
			Service: translate.PortName(to.service.Name, to.port.Port), Protocol: to.port.Protocol,
		})
	}
	for i := range out.Ports {
		p := &out.Ports[i]
		p.Access = translate.NewAccess(b.snapshot.Config.TrustDomain, policies, reached[p.App])
	}
	return out
}

func sameInbound(a, b *translate.Inbound) bool { return reflect.DeepEqual(a, b) }
