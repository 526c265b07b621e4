package translate

import (
	"cmp"
	"slices"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/heddle-mesh/heddle/controlplane/mesh"
)

// Members is an immutable list of the workloads that serve a port. Two lists are the
// same input if they are the same pointer: the pipeline keeps the old one when nothing
// in it has changed.
type Members struct{ Workloads []*mesh.Workload }

// EndpointsIn is what the endpoints of a service's port are made of.
type EndpointsIn struct {
	Service mesh.Name
	Port    mesh.ServicePort
	Members *Members
	// Zone is the caller's zone where that is preferred, "" where all zones are alike.
	Zone string
}

// Endpoints makes the load assignment: one locality a zone. With a preferred zone its
// locality has priority 0 and all others priority 1, so that requests leave the zone
// only as far as the zone's own endpoints are down or draining.
func Endpoints(in EndpointsIn) *endpointv3.ClusterLoadAssignment {
	byZone := map[string]*endpointv3.LocalityLbEndpoints{}
	for _, w := range in.Members.Workloads {
		ep := endpoint(w, in.Port.Target)
		if ep == nil {
			continue
		}
		loc := byZone[w.Zone]
		if loc == nil {
			loc = &endpointv3.LocalityLbEndpoints{Locality: &corev3.Locality{Zone: w.Zone}}
			byZone[w.Zone] = loc
		}
		loc.LbEndpoints = append(loc.LbEndpoints, ep)
		loc.LoadBalancingWeight = wrapperspb.UInt32(uint32(len(loc.LbEndpoints)))
	}
	cla := &endpointv3.ClusterLoadAssignment{ClusterName: PortName(in.Service, in.Port.Port)}
	for zone, loc := range byZone {
		// Priorities must start at 0: without an endpoint at home, the others are it.
		if _, atHome := byZone[in.Zone]; in.Zone != "" && atHome && zone != in.Zone {
			loc.Priority = 1
		}
		cla.Endpoints = append(cla.Endpoints, loc)
	}
	slices.SortFunc(cla.Endpoints, func(a, b *endpointv3.LocalityLbEndpoints) int {
		return cmp.Or(cmp.Compare(a.Priority, b.Priority), cmp.Compare(a.Locality.Zone, b.Locality.Zone))
	})
	return cla
}

// endpoint gives a workload's endpoint, or nil where it does not serve the port.
func endpoint(w *mesh.Workload, target uint16) *endpointv3.LbEndpoint {
	port, ok := peerPort(w, target)
	if !ok || len(w.Addresses) == 0 {
		return nil
	}
	ep := &endpointv3.Endpoint{Address: socketAddress(w.Addresses[0].String(), port)}
	for _, a := range w.Addresses[1:] { // the other family: tried in turn, as RFC 8305 has it
		ep.AdditionalAddresses = append(ep.AdditionalAddresses, &endpointv3.Endpoint_AdditionalAddress{
			Address: socketAddress(a.String(), port),
		})
	}
	health := corev3.HealthStatus_HEALTHY
	if !w.Ready {
		health = corev3.HealthStatus_DRAINING // nothing new goes there, what is open stays
	}
	return &endpointv3.LbEndpoint{
		HostIdentifier: &endpointv3.LbEndpoint_Endpoint{Endpoint: ep},
		HealthStatus:   health,
	}
}

func peerPort(w *mesh.Workload, target uint16) (uint16, bool) {
	for _, p := range w.Ports {
		if p.App == target {
			return p.Peer, true
		}
	}
	return 0, false
}
