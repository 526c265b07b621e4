package translate

import (
	"strconv"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	directv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/direct_response/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/heddle-mesh/heddle/controlplane/mesh"
)

// InboundPort is one port of a workload as peers reach it.
type InboundPort struct {
	App, Peer uint16
	Local     uint16 // see mesh.WorkloadPort
	Protocol  mesh.Protocol
	Access    Access
	// Service names the port for people: the service and port that led here.
	Service string
}

// Inbound is an immutable description of what a workload serves. As with Members, one
// pointer is one value.
type Inbound struct {
	Ports   []InboundPort
	Capture mesh.Capture
	IPv6    bool
	// Address is where an explicit sidecar listens; a transparent one takes all.
	Address string
}

// InboundIn is what a workload's inbound listeners are made of.
type InboundIn struct {
	Inbound     *Inbound
	TrustDomain string
	Telemetry   Telemetry
}

// InboundListener makes the listener that takes every captured inbound connection of a
// transparent sidecar: one chain a port, each with mutual TLS. What has no chain, or
// speaks no TLS, is refused; so is everything where no service leads to the workload.
func InboundListener(in InboundIn) *listenerv3.Listener {
	l := &listenerv3.Listener{
		Name:             InboundName,
		TrafficDirection: corev3.TrafficDirection_INBOUND,
		Address:          socketAddress("0.0.0.0", InboundListenPort),
		ListenerFilters:  []*listenerv3.ListenerFilter{originalDestination()},
	}
	if in.Inbound.IPv6 {
		l.AdditionalAddresses = []*listenerv3.AdditionalAddress{{Address: socketAddress("::", InboundListenPort)}}
	}
	for _, p := range sortedPorts(in.Inbound.Ports) {
		chain := inboundChain(p, in)
		chain.FilterChainMatch = &listenerv3.FilterChainMatch{DestinationPort: wrapperspb.UInt32(uint32(p.Peer))}
		l.FilterChains = append(l.FilterChains, chain)
	}
	if len(l.FilterChains) == 0 { // Envoy takes no listener without one
		l.DefaultFilterChain = &listenerv3.FilterChain{
			Name:    "closed",
			Filters: []*listenerv3.Filter{networkFilter("envoy.filters.network.direct_response", message(&directv3.Config{}))},
		}
	}
	return l
}

// ExplicitListener makes the listener of one port of an explicit sidecar.
func ExplicitListener(in InboundIn, p InboundPort) *listenerv3.Listener {
	return &listenerv3.Listener{
		Name:             ExplicitName(p.Peer),
		StatPrefix:       InboundName,
		TrafficDirection: corev3.TrafficDirection_INBOUND,
		Address:          socketAddress(in.Inbound.Address, p.Peer),
		FilterChains:     []*listenerv3.FilterChain{inboundChain(p, in)},
	}
}

// ExplicitName names an explicit sidecar's inbound listener.
func ExplicitName(peer uint16) string { return InboundName + "|" + strconv.Itoa(int(peer)) }

func inboundChain(p InboundPort, in InboundIn) *listenerv3.FilterChain {
	if !p.Protocol.IsHTTP() {
		return &listenerv3.FilterChain{
			Name:            p.Service,
			TransportSocket: downstreamTLS(p.Access.admitted(in.TrustDomain)),
			Filters:         append(networkAccess(p.Access), admittedProxy("inbound|"+p.Service, LocalName(p.App), in.Telemetry)),
		}
	}
	m := connectionManager("inbound|"+p.Service, in.Telemetry, httpAccess(p.Access)...)
	// The application learns who calls, and no caller can say it is somebody else.
	m.ForwardClientCertDetails = hcmv3.HttpConnectionManager_SANITIZE_SET
	m.SetCurrentClientCertDetails = &hcmv3.HttpConnectionManager_SetCurrentClientCertDetails{Uri: true}
	return &listenerv3.FilterChain{
		Name:            p.Service,
		TransportSocket: downstreamTLS(anyOf(in.TrustDomain), "h2", "http/1.1"),
		Filters: []*listenerv3.Filter{networkFilter("envoy.filters.network.http_connection_manager",
			message(withRoutes(m, localRoutes(p))))},
	}
}

// localRoutes lead everything to the application.
func localRoutes(p InboundPort) *routev3.RouteConfiguration {
	return &routev3.RouteConfiguration{
		Name: "inbound|" + p.Service,
		// A listener must not be refused because its cluster is a moment late.
		ValidateClusters: wrapperspb.Bool(false),
		VirtualHosts: []*routev3.VirtualHost{{
			Name:    "inbound",
			Domains: []string{"*"},
			Routes: []*routev3.Route{{
				Name:  "inbound|" + p.Service,
				Match: &routev3.RouteMatch{PathSpecifier: &routev3.RouteMatch_Prefix{Prefix: "/"}},
				Action: &routev3.Route_Route{Route: &routev3.RouteAction{
					ClusterSpecifier: &routev3.RouteAction_Cluster{Cluster: LocalName(p.App)},
					Timeout:          durationpb.New(0), // the caller's side bounds the time
					// An idle connection that the application closes just now: nothing was sent yet.
					RetryPolicy: &routev3.RetryPolicy{RetryOn: "reset-before-request", NumRetries: wrapperspb.UInt32(1)},
				}},
			}},
		}},
	}
}
