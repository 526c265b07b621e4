package translate

import (
	"cmp"
	"net/netip"
	"slices"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/heddle-mesh/heddle/controlplane/mesh"
)

// Members is an immutable list of the endpoints of a service. Two lists are the same
// input if they are the same pointer: the pipeline keeps the old one when nothing in it
// has changed.
type Members struct{ Members []Member }

// Member is one endpoint of a service.
type Member struct {
	Hostname  string // under that of a headless service; "" = made of the address
	Identity  string // SPIFFE ID; "" is outside of the mesh: spoken to in the clear
	Addresses []netip.Addr
	Ports     []MemberPort
	Ready     bool
	// Zone and Node are where it runs; either may be empty.
	Zone, Node string
}

// MemberPort is where a member serves a port of the service.
type MemberPort struct {
	Service, Number uint16
	Open            bool // spoken to in the clear, whatever the member's identity
}

// port gives where m serves a port of the service.
func (m *Member) port(service uint16) (MemberPort, bool) {
	for _, p := range m.Ports {
		if p.Service == service {
			return p, true
		}
	}
	return MemberPort{}, false
}

// Outside reports whether the member's place for a port of the service is outside of the
// mesh, so that it is spoken to in the clear.
func (m *Member) Outside(service uint16) bool {
	p, ok := m.port(service)
	return m.Identity == "" || ok && p.Open
}

// Equal reports whether two members are the same in everything.
func (m Member) Equal(o Member) bool {
	return m.Hostname == o.Hostname && m.Identity == o.Identity && m.Ready == o.Ready && m.Zone == o.Zone && m.Node == o.Node &&
		slices.Equal(m.Addresses, o.Addresses) && slices.Equal(m.Ports, o.Ports)
}

// EndpointsIn is what the endpoints of a service's port are made of.
type EndpointsIn struct {
	Service mesh.Name
	Port    mesh.ServicePort
	Members *Members
	// Zone and Node are the caller's where they are preferred, "" where all are alike.
	Zone, Node string
	// NodeOnly leaves out what is not on the caller's node.
	NodeOnly bool
}

// Endpoints makes the load assignment: a locality for each zone, and for each step away
// from a caller whose place is preferred: its node, its zone, the others. Requests go a
// step further only as far as the nearer endpoints are down or draining.
func Endpoints(in EndpointsIn) *endpointv3.ClusterLoadAssignment {
	type place struct {
		distance int
		zone     string
	}
	places := map[place]*endpointv3.LocalityLbEndpoints{}
	for i := range in.Members.Members {
		m := &in.Members.Members[i]
		ep := endpoint(m, in.Port.Port)
		at := place{in.distance(m), m.Zone}
		if ep == nil || in.NodeOnly && at.distance != 0 {
			continue
		}
		loc := places[at]
		if loc == nil {
			loc = &endpointv3.LocalityLbEndpoints{Locality: &corev3.Locality{Zone: m.Zone}, Priority: uint32(at.distance)}
			places[at] = loc
		}
		loc.LbEndpoints = append(loc.LbEndpoints, ep)
		loc.LoadBalancingWeight = wrapperspb.UInt32(uint32(len(loc.LbEndpoints)))
	}
	cla := &endpointv3.ClusterLoadAssignment{ClusterName: PortName(in.Service, in.Port.Port)}
	for _, loc := range places {
		cla.Endpoints = append(cla.Endpoints, loc)
	}
	slices.SortFunc(cla.Endpoints, func(a, b *endpointv3.LocalityLbEndpoints) int {
		return cmp.Or(cmp.Compare(a.Priority, b.Priority), cmp.Compare(a.Locality.Zone, b.Locality.Zone))
	})
	closeRanks(cla.Endpoints)
	return cla
}

// distance is how far m is from the caller, 0 for everybody where no place is preferred.
func (in EndpointsIn) distance(m *Member) int {
	switch {
	case in.Node != "" && m.Node == in.Node:
		return 0
	case in.Zone != "" && m.Zone == in.Zone:
		return 1
	case in.Zone != "" || in.Node != "":
		return 2
	}
	return 0
}

// closeRanks numbers the priorities of localities that are in order: Envoy wants them to
// begin at 0 and to leave none out.
func closeRanks(localities []*endpointv3.LocalityLbEndpoints) {
	var next, last uint32
	for i, loc := range localities {
		if i > 0 && loc.Priority != last {
			next++
		}
		last, loc.Priority = loc.Priority, next
	}
}

// endpoint gives a member's endpoint, or nil where it does not serve the port.
func endpoint(m *Member, service uint16) *endpointv3.LbEndpoint {
	port, ok := m.port(service)
	if !ok || len(m.Addresses) == 0 {
		return nil
	}
	ep := &endpointv3.Endpoint{Address: socketAddress(m.Addresses[0].String(), port.Number)}
	for _, a := range m.Addresses[1:] { // the other family: tried in turn, as RFC 8305 has it
		ep.AdditionalAddresses = append(ep.AdditionalAddresses, &endpointv3.Endpoint_AdditionalAddress{
			Address: socketAddress(a.String(), port.Number),
		})
	}
	health := corev3.HealthStatus_HEALTHY
	if !m.Ready {
		health = corev3.HealthStatus_DRAINING // nothing new goes there, what is open stays
	}
	lb := &endpointv3.LbEndpoint{
		HostIdentifier: &endpointv3.LbEndpoint_Endpoint{Endpoint: ep},
		HealthStatus:   health,
	}
	if m.Outside(service) {
		lb.Metadata = outsideMetadata()
	}
	return lb
}

// outsideMetadata marks an endpoint that is to be spoken to in the clear, see [Cluster].
// What is not marked is spoken to by mutual TLS: an oversight fails closed.
func outsideMetadata() *corev3.Metadata {
	return &corev3.Metadata{FilterMetadata: map[string]*structpb.Struct{"envoy.transport_socket_match": outsideMatch()}}
}

func outsideMatch() *structpb.Struct {
	return &structpb.Struct{Fields: map[string]*structpb.Value{"outside": structpb.NewBoolValue(true)}}
}
