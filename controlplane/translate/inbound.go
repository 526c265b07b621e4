package translate

import (
	"slices"
	"strconv"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	directv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/direct_response/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	"google.golang.org/protobuf/types/known/anypb"
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
	// TraceSampling is the percentage of requests that start a trace.
	TraceSampling float64
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
		AccessLog:        accessLog(handshakeLogFields, handshakeFailed),
	}
	if in.Inbound.IPv6 {
		l.AdditionalAddresses = []*listenerv3.AdditionalAddress{{Address: socketAddress("::", InboundListenPort)}}
	}
	for _, p := range sortedPorts(in.Inbound.Ports) {
		chain := inboundChain(p, in)
		chain.FilterChainMatch = &listenerv3.FilterChainMatch{DestinationPort: wrapperspb.UInt32(uint32(p.Peer))}
		l.FilterChains = append(l.FilterChains, chain)
	}
	return closedIfEmpty(l)
}

// closedIfEmpty has a listener without a filter chain, which Envoy does not take, close
// every connection.
func closedIfEmpty(l *listenerv3.Listener) *listenerv3.Listener {
	if len(l.FilterChains) == 0 {
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
		AccessLog:        accessLog(handshakeLogFields, handshakeFailed),
	}
}

// ExplicitName names an explicit sidecar's inbound listener.
func ExplicitName(peer uint16) string { return InboundName + "|" + strconv.Itoa(int(peer)) }

func inboundChain(p InboundPort, in InboundIn) *listenerv3.FilterChain {
	if !p.Protocol.IsHTTP() {
		return &listenerv3.FilterChain{
			Name:            p.Service,
			TransportSocket: downstreamTLS(p.Access.admitted(in.TrustDomain)),
			Filters:         []*listenerv3.Filter{admittedProxy(InboundRoutesName(p), LocalName(p.App))},
		}
	}
	m := connectionManager(InboundRoutesName(p), in.TraceSampling, accessFilter())
	// The application learns who calls, and no caller can say it is somebody else.
	m.ForwardClientCertDetails = hcmv3.HttpConnectionManager_SANITIZE_SET
	m.SetCurrentClientCertDetails = &hcmv3.HttpConnectionManager_SetCurrentClientCertDetails{Uri: true}
	return &listenerv3.FilterChain{
		Name:            p.Service,
		TransportSocket: downstreamTLS(anyOf(in.TrustDomain), "h2", "http/1.1"),
		Filters: []*listenerv3.Filter{networkFilter("envoy.filters.network.http_connection_manager",
			message(withRDS(m, InboundRoutesName(p))))},
	}
}

// InboundRoutesName names the routes of an HTTP port of a workload.
func InboundRoutesName(p InboundPort) string { return InboundName + "|" + p.Service }

// InboundRoutesIn is what the routes of a workload's port are made of.
type InboundRoutesIn struct {
	Inbound *Inbound
	App     uint16 // the port
}

// InboundRoutes lead everybody who may come to the application. Who may is said here and
// not in the listener, so that a policy holds from the next request on, on connections
// that exist too, and no connection is closed for its change.
func InboundRoutes(in InboundRoutesIn) *routev3.RouteConfiguration {
	p := in.Inbound.Ports[slices.IndexFunc(in.Inbound.Ports, func(p InboundPort) bool { return p.App == in.App })]
	name := InboundRoutesName(p)
	return &routev3.RouteConfiguration{
		Name: name,
		// A listener must not be refused because its cluster is a moment late.
		ValidateClusters: wrapperspb.Bool(false),
		VirtualHosts: []*routev3.VirtualHost{{
			Name:                 InboundName,
			Domains:              []string{"*"},
			TypedPerFilterConfig: map[string]*anypb.Any{accessFilterName: message(routeAccess(p.Access))},
			Routes: []*routev3.Route{{
				Name:  name,
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
