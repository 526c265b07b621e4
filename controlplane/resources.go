package controlplane

import (
	"net/netip"
	"reflect"
	"slices"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"

	"github.com/heddle-mesh/heddle/controlplane/mesh"
	"github.com/heddle-mesh/heddle/controlplane/translate"
	"github.com/heddle-mesh/heddle/controlplane/xds"
)

// Variants of resources: what one proxy sees and another does not.

// WorkloadVariant is for the proxy of one workload.
func WorkloadVariant(name mesh.Name) string { return "workload/" + name.String() }

// ZoneVariant is for the proxies in a zone.
func ZoneVariant(zone string) string { return "zone/" + zone }

// NodeVariant is for the proxies on a node.
func NodeVariant(node string) string { return "node/" + node }

// AccountVariant is for the proxies of a service account.
func AccountVariant(account mesh.Name) string { return "account/" + account.String() }

// CaptureVariant is for the proxies with transparent capture, of one or both families.
func CaptureVariant(ipv6 bool) string {
	if ipv6 {
		return "capture/dual"
	}
	return "capture/v4"
}

// Variants lists the variants that the proxy of w sees, the most specific first.
func Variants(w *mesh.Workload) []string {
	out := []string{WorkloadVariant(w.Name), AccountVariant(w.Account())}
	if w.Node != "" {
		out = append(out, NodeVariant(w.Node))
	}
	if w.Zone != "" {
		out = append(out, ZoneVariant(w.Zone))
	}
	switch w.Capture {
	case mesh.Transparent:
		out = append(out, CaptureVariant(hasIPv6(w.Addresses)))
	case mesh.AtGateway:
		if hasIPv6(w.Addresses) {
			out = append(out, GatewayVariant(w.Gateway(), true))
		}
		out = append(out, GatewayVariant(w.Gateway(), false))
	}
	return out
}

func hasIPv6(addrs []netip.Addr) bool { return slices.ContainsFunc(addrs, netip.Addr.Is6) }

// global wants what exists once.
func (b *build) global() {
	config := []mesh.Object{b.snapshot.Config}
	instances := translate.Prefixes(b.instances()...)
	for _, ipv6 := range []bool{false, true} {
		want(b, xds.Key{Type: translate.ListenerType, Name: translate.OutboundName, Variant: CaptureVariant(ipv6)},
			translate.CaptureIn{Prefixes: translate.Prefixes(b.pipeline.prefixes...), IPv6: ipv6, Instances: instances},
			translate.Capture, config)
	}
	want(b, xds.Key{Type: translate.ClusterType, Name: translate.PassthroughName}, struct{}{},
		func(struct{}) *clusterv3.Cluster { return translate.Passthrough() }, config)
	want(b, xds.Key{Type: translate.RuntimeType, Name: translate.RuntimeName},
		translate.RuntimeIn{AccessLog: b.snapshot.Config.AccessLog}, translate.Runtime, config)
}

// service wants what leads to a service, the same for every caller.
func (b *build) service(s *mesh.Service) {
	origins := []mesh.Object{s}
	members := keep(b, "members", 0, b.members(s), sameMembers)
	own := []string{s.Name.String()}
	reached := slices.Concat(own, b.reachedBy(s))
	host := translate.HostIn{Service: s}
	if s.Headless {
		host.Members = members
	}
	want(b, xds.Key{Type: translate.HostType, Name: s.Name.String()}, host, translate.Host, origins)
	for _, port := range s.Ports {
		b.groups = reached
		b.upstream(s, port, members)
		b.groups = own
		if port.Protocol.IsHTTP() {
			b.routed(s, port)
		}
		for _, vip := range s.VirtualIPs {
			b.destination(s, port, vip, members, origins)
		}
	}
}

// reachedBy are the other services whose routes lead to s: who uses one of them needs s.
func (b *build) reachedBy(s *mesh.Service) (out []string) {
	for _, r := range b.snapshot.RoutesTo(s.Name) {
		for _, parent := range r.ParentServices() {
			if name := parent.String(); parent != s.Name && !slices.Contains(out, name) {
				out = append(out, name)
			}
		}
	}
	slices.Sort(out)
	return out
}

// upstream wants the cluster of a port and its endpoints.
func (b *build) upstream(s *mesh.Service, port mesh.ServicePort, members *translate.Members) {
	origins := []mesh.Object{s}
	name := translate.PortName(s.Name, port.Port)
	endpoints := xds.Key{Type: translate.EndpointsType, Name: name}
	want(b, xds.Key{Type: translate.ClusterType, Name: name},
		b.clusterIn(s, port, members, ""), translate.Cluster, origins, endpoints)
	b.places(s, endpoints, translate.EndpointsIn{Service: s.Name, Port: port, Members: members})
}

// places wants the endpoints of a port as they look from everywhere: a variant for each
// zone and node that has some, where that matters.
func (b *build) places(s *mesh.Service, key xds.Key, in translate.EndpointsIn) {
	origins := []mesh.Object{s}
	everywhere := in
	everywhere.NodeOnly = s.NodeLocal // a caller on another node has nobody to ask
	want(b, key, everywhere, translate.Endpoints, origins)
	if s.NodeLocal || s.Prefer == mesh.PreferNode {
		for node, zone := range nodes(in.Members) {
			at := in
			at.Node, at.Zone, at.NodeOnly = node, zone, s.NodeLocal
			want(b, xds.Key{Type: key.Type, Name: key.Name, Variant: NodeVariant(node)}, at, translate.Endpoints, origins)
		}
	}
	if s.NodeLocal || s.Prefer == mesh.PreferDefault {
		return // for all alike: the proxies weigh zones themselves, see account
	}
	for _, zone := range zones(in.Members) {
		at := in
		at.Zone = zone
		want(b, xds.Key{Type: key.Type, Name: key.Name, Variant: ZoneVariant(zone)}, at, translate.Endpoints, origins)
	}
}

func (b *build) clusterIn(s *mesh.Service, port mesh.ServicePort, members *translate.Members, name string) translate.ClusterIn {
	ids := identities(members)
	if ids == "" { // nobody serves it yet; whoever will must at least be of this name
		ids = translate.NewIdentities("spiffe://" + b.snapshot.Config.TrustDomain + "/ns/" + s.Namespace + "/sa/" + s.Name.Name)
	}
	return translate.ClusterIn{
		Service: s.Name, Port: port, Identities: ids, Name: name, Sliced: s.Sliced, Outside: outside(members, port.Port),
		Outlier: b.snapshot.Config.Outlier, Timeout: b.snapshot.Config.ConnectTimeout,
		ByZone: b.snapshot.Config.PreferZone && s.Prefer == mesh.PreferDefault && !s.NodeLocal,
	}
}

// account wants what the proxies of one identity know of themselves: how many of them are in
// which zone. It tells each how much of what it sends can stay in its own.
func (b *build) account(name mesh.Name) {
	var at []string
	for _, w := range b.snapshot.Sharing(name) {
		at = append(at, w.Zone)
	}
	if len(at) == 0 {
		return
	}
	shares := keep(b, "zones", 0, translate.NewShares(at), translate.SameShares)
	want(b, xds.Key{Type: translate.EndpointsType, Name: translate.SelfName, Variant: AccountVariant(name)},
		translate.SelfIn{Shares: shares}, translate.Self, []mesh.Object{b.snapshot.Config})
}

// routed wants the listener and the routes of an HTTP port.
func (b *build) routed(s *mesh.Service, port mesh.ServicePort) {
	name := translate.PortName(s.Name, port.Port)
	want(b, xds.Key{Type: translate.ListenerType, Name: name},
		translate.ServiceListenerIn{Service: s.Name, Port: port.Port, TraceSampling: b.snapshot.Config.TraceSampling},
		translate.ServiceListener, []mesh.Object{s}, xds.Key{Type: translate.RoutesType, Name: name})
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
func (b *build) destination(s *mesh.Service, port mesh.ServicePort, addr netip.Addr, members *translate.Members, origins []mesh.Object) {
	name := translate.DestinationName(addr, port.Port)
	key := xds.Key{Type: translate.ClusterType, Name: name}
	if port.Protocol.IsHTTP() {
		want(b, key, translate.FrontIn{Service: s.Name, Port: port.Port, Address: addr}, translate.Front, origins,
			xds.Key{Type: translate.ListenerType, Name: translate.PortName(s.Name, port.Port)})
		return
	}
	want(b, key, b.clusterIn(s, port, members, name), translate.Cluster, origins,
		xds.Key{Type: translate.EndpointsType, Name: translate.PortName(s.Name, port.Port)})
}

func sameAttached(a, b *translate.Attached) bool {
	return slices.Equal(a.Routes, b.Routes) && reflect.DeepEqual(a.Known, b.Known)
}
