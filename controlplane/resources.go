package controlplane

import (
	"net/netip"
	"reflect"
	"slices"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"

	"github.com/heddle-mesh/heddle/controlplane/mesh"
	"github.com/heddle-mesh/heddle/controlplane/translate"
	"github.com/heddle-mesh/heddle/controlplane/xds"
)

// Variants of resources: what one proxy sees and another does not.

// WorkloadVariant is for the proxy of one workload.
func WorkloadVariant(name mesh.Name) string { return "workload/" + name.String() }

// ZoneVariant is for the proxies in a zone.
func ZoneVariant(zone string) string { return "zone/" + zone }

// CaptureVariant is for the proxies with transparent capture, of one or both families.
func CaptureVariant(ipv6 bool) string {
	if ipv6 {
		return "capture/dual"
	}
	return "capture/v4"
}

// Variants lists the variants that the proxy of w sees, the most specific first.
func Variants(w *mesh.Workload) []string {
	out := []string{WorkloadVariant(w.Name)}
	if w.Zone != "" {
		out = append(out, ZoneVariant(w.Zone))
	}
	if w.Capture == mesh.Transparent {
		out = append(out, CaptureVariant(hasIPv6(w.Addresses)))
	}
	return out
}

func hasIPv6(addrs []netip.Addr) bool { return slices.ContainsFunc(addrs, netip.Addr.Is6) }

func (b *build) telemetry() translate.Telemetry {
	return translate.Telemetry{TraceSampling: b.snapshot.Config.TraceSampling, AccessLog: b.snapshot.Config.AccessLog}
}

// global wants what exists once.
func (b *build) global() {
	config := []mesh.Object{b.snapshot.Config}
	for _, ipv6 := range []bool{false, true} {
		want(b, xds.Key{Type: translate.ListenerType, Name: translate.OutboundName, Variant: CaptureVariant(ipv6)},
			translate.CaptureIn{Prefixes: translate.Prefixes(b.pipeline.prefixes...), IPv6: ipv6, Telemetry: b.telemetry()},
			translate.Capture, config)
	}
	want(b, xds.Key{Type: translate.ClusterType, Name: translate.PassthroughName}, struct{}{},
		func(struct{}) *clusterv3.Cluster { return translate.Passthrough() }, config)
}

// service wants what leads to a service, the same for every caller.
func (b *build) service(s *mesh.Service) {
	origins := []mesh.Object{s}
	members := keep(b, "members", 0, &translate.Members{Workloads: b.snapshot.Members(s)}, sameMembers)
	host := translate.HostIn{Service: s}
	if s.Headless {
		host.Members = members
	}
	want(b, xds.Key{Type: translate.HostType, Name: s.Name.String()}, host, translate.Host, origins)
	for _, port := range s.Ports {
		b.upstream(s, port, members)
		if port.Protocol.IsHTTP() {
			b.routed(s, port)
		}
		for _, vip := range s.VirtualIPs {
			b.destination(s, port, vip, identities(members), origins)
		}
	}
}

// upstream wants the cluster of a port and its endpoints.
func (b *build) upstream(s *mesh.Service, port mesh.ServicePort, members *translate.Members) {
	origins := []mesh.Object{s}
	name := translate.PortName(s.Name, port.Port)
	endpoints := xds.Key{Type: translate.EndpointsType, Name: name}
	want(b, xds.Key{Type: translate.ClusterType, Name: name},
		b.clusterIn(s, port, identities(members), ""), translate.Cluster, origins, endpoints)
	in := translate.EndpointsIn{Service: s.Name, Port: port, Members: members}
	want(b, endpoints, in, translate.Endpoints, origins)
	if !b.snapshot.Config.PreferZone {
		return
	}
	for _, zone := range zones(members) {
		in.Zone = zone
		want(b, xds.Key{Type: translate.EndpointsType, Name: name, Variant: ZoneVariant(zone)}, in, translate.Endpoints, origins)
	}
}

func (b *build) clusterIn(s *mesh.Service, port mesh.ServicePort, ids translate.Identities, name string) translate.ClusterIn {
	if ids == "" { // nobody serves it yet; whoever will must at least be of this name
		ids = translate.NewIdentities("spiffe://" + b.snapshot.Config.TrustDomain + "/ns/" + s.Namespace + "/sa/" + s.Name.Name)
	}
	return translate.ClusterIn{
		Service: s.Name, Port: port, Identities: ids, Name: name,
		Outlier: b.snapshot.Config.Outlier, Timeout: b.snapshot.Config.ConnectTimeout,
	}
}

// routed wants the listener and the routes of an HTTP port.
func (b *build) routed(s *mesh.Service, port mesh.ServicePort) {
	name := translate.PortName(s.Name, port.Port)
	want(b, xds.Key{Type: translate.ListenerType, Name: name},
		translate.ServiceListenerIn{Service: s.Name, Port: port.Port, Telemetry: b.telemetry()},
		translate.ServiceListener, []mesh.Object{s})
	attached := keep(b, "routes", port.Port, b.attached(s, port), sameAttached)
	origins := []mesh.Object{s}
	for _, r := range attached.Routes {
		origins = append(origins, r)
	}
	want(b, xds.Key{Type: translate.RoutesType, Name: name},
		translate.RoutesIn{Service: s.Name, Port: port.Port, Attached: attached}, translate.Routes, origins)
}

// attached lists the routes of a port and which of their backends exist.
func (b *build) attached(s *mesh.Service, port mesh.ServicePort) *translate.Attached {
	out := &translate.Attached{Known: map[translate.Backend]bool{}}
	for _, r := range b.snapshot.RoutesOf(s.Name) {
		if !slices.ContainsFunc(r.Parents, func(p mesh.Parent) bool {
			return p.Service == s.Name && (p.Port == 0 || p.Port == port.Port)
		}) {
			continue
		}
		out.Routes = append(out.Routes, r)
		for _, backend := range r.Backends() {
			if target, ok := b.snapshot.Services.Lookup(backend.Service); ok {
				if p, ok := target.Port(backend.Port); ok && p.Protocol.IsHTTP() {
					out.Known[translate.Backend{Service: backend.Service, Port: backend.Port}] = true
				}
			}
		}
	}
	return out
}

// destination wants the cluster that the capture listener picks for an address: for
// HTTP the way to the routes, for TCP the endpoints themselves.
func (b *build) destination(s *mesh.Service, port mesh.ServicePort, addr netip.Addr, ids translate.Identities, origins []mesh.Object) {
	name := translate.DestinationName(addr, port.Port)
	key := xds.Key{Type: translate.ClusterType, Name: name}
	if port.Protocol.IsHTTP() {
		want(b, key, translate.FrontIn{Service: s.Name, Port: port.Port, Address: addr}, translate.Front, origins)
		return
	}
	want(b, key, b.clusterIn(s, port, ids, name), translate.Cluster, origins,
		xds.Key{Type: translate.EndpointsType, Name: translate.PortName(s.Name, port.Port)})
}

// workload wants what one proxy serves: its inbound side, and an explicit sidecar's
// upstreams.
func (b *build) workload(w *mesh.Workload) {
	services := b.snapshot.ServicesOf(w)
	policies := b.snapshot.PoliciesFor(w.Namespace, services)
	origins := []mesh.Object{w}
	for _, s := range services {
		origins = append(origins, s)
	}
	for _, p := range policies {
		origins = append(origins, p)
	}
	inbound := keep(b, "inbound", 0, b.inbound(w, services, policies), sameInbound)
	in := translate.InboundIn{Inbound: inbound, TrustDomain: b.snapshot.Config.TrustDomain, Telemetry: b.telemetry()}
	variant := WorkloadVariant(w.Name)
	for _, p := range inbound.Ports {
		want(b, xds.Key{Type: translate.ClusterType, Name: translate.LocalName(p.App), Variant: variant},
			translate.LocalIn{Port: p.App, Listen: p.Local, Protocol: p.Protocol}, translate.Local, origins)
	}
	if w.Capture == mesh.Explicit {
		b.explicit(w, in, origins)
		return
	}
	want(b, xds.Key{Type: translate.ListenerType, Name: translate.InboundName, Variant: variant}, in, translate.InboundListener, origins)
	b.addressed(w, services)
}

func (b *build) explicit(w *mesh.Workload, in translate.InboundIn, origins []mesh.Object) {
	variant := WorkloadVariant(w.Name)
	type portIn struct {
		translate.InboundIn
		peer uint16
	}
	for _, p := range in.Inbound.Ports {
		want(b, xds.Key{Type: translate.ListenerType, Name: translate.ExplicitName(p.Peer), Variant: variant},
			portIn{in, p.Peer}, func(portIn) *listenerv3.Listener { return translate.ExplicitListener(in, p) }, origins)
	}
	for _, u := range w.Upstreams {
		s, ok := b.snapshot.Services.Lookup(u.Service)
		if !ok {
			continue // the listener appears with the service; until then connections are refused
		}
		if port, ok := s.Port(u.Port); ok {
			want(b, xds.Key{Type: translate.ListenerType, Name: translate.UpstreamName(u.Local), Variant: variant},
				translate.UpstreamIn{Service: u.Service, Port: u.Port, Protocol: port.Protocol, Local: u.Local, Telemetry: b.telemetry()},
				translate.Upstream, []mesh.Object{w, s})
		}
	}
}

// addressed wants the clusters of a workload's own addresses, by which the clients of a
// headless service reach it.
func (b *build) addressed(w *mesh.Workload, services []*mesh.Service) {
	self := keep(b, "self", 0, &translate.Members{Workloads: []*mesh.Workload{w}}, sameMembers)
	for _, s := range services {
		if !s.Headless {
			continue
		}
		for _, port := range s.Ports {
			for _, addr := range w.Addresses {
				b.instance(s, port, addr, self)
			}
		}
	}
}

// instance wants the cluster of one port of one workload under its own address.
func (b *build) instance(s *mesh.Service, port mesh.ServicePort, addr netip.Addr, self *translate.Members) {
	if !slices.ContainsFunc(self.Workloads[0].Ports, func(p mesh.WorkloadPort) bool { return p.App == port.Target }) {
		return
	}
	name := translate.DestinationName(addr, port.Target)
	in := translate.InstanceIn{Cluster: b.clusterIn(s, port, identities(self), name), Address: netip.AddrPortFrom(addr, port.Target)}
	want(b, xds.Key{Type: translate.ClusterType, Name: name}, in, translate.Instance, []mesh.Object{s, self.Workloads[0]})
}

// inbound describes what a workload serves: every port it registered that a service
// leads to, as that service says. Where two services disagree on the protocol of one
// port, the first by name is right; the status of the other says so.
func (b *build) inbound(w *mesh.Workload, services []*mesh.Service, policies []*mesh.AuthorizationPolicy) *translate.Inbound {
	out := &translate.Inbound{Capture: w.Capture, IPv6: hasIPv6(w.Addresses)}
	if len(w.Addresses) > 0 {
		out.Address = w.Addresses[0].String()
	}
	for _, wp := range w.Ports {
		port := translate.InboundPort{App: wp.App, Peer: wp.Peer, Local: wp.Local}
		var reached []translate.Backend
		for _, s := range services {
			for _, sp := range s.Ports {
				if sp.Target != wp.App {
					continue
				}
				reached = append(reached, translate.Backend{Service: s.Name, Port: sp.Port})
				if port.Service == "" {
					port.Service, port.Protocol = translate.PortName(s.Name, sp.Port), sp.Protocol
				}
			}
		}
		if port.Service == "" {
			continue // no service leads there: closed
		}
		port.Access = translate.NewAccess(b.snapshot.Config.TrustDomain, policies, reached)
		out.Ports = append(out.Ports, port)
	}
	return out
}

func identities(m *translate.Members) translate.Identities {
	var uris []string
	for _, w := range m.Workloads {
		uris = append(uris, w.Identity.String())
	}
	return translate.NewIdentities(uris...)
}

// zones lists the zones of members, each once.
func zones(m *translate.Members) []string {
	var out []string
	for _, w := range m.Workloads {
		if w.Zone != "" {
			out = append(out, w.Zone)
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

func sameMembers(a, b *translate.Members) bool { return slices.Equal(a.Workloads, b.Workloads) }

func sameAttached(a, b *translate.Attached) bool {
	return slices.Equal(a.Routes, b.Routes) && reflect.DeepEqual(a.Known, b.Known)
}

func sameInbound(a, b *translate.Inbound) bool { return reflect.DeepEqual(a, b) }
