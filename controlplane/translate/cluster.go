package translate

import (
	"cmp"
	"math"
	"net/netip"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	lbv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/load_balancing_policies/common/v3"
	leastv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/load_balancing_policies/least_request/v3"
	internalv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/internal_upstream/v3"
	rawv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/raw_buffer/v3"
	httpv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/upstreams/http/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/heddle-mesh/heddle/controlplane/mesh"
)

// ClusterIn is what the cluster of a service's port is made of.
type ClusterIn struct {
	Service    mesh.Name
	Port       mesh.ServicePort
	Identities Identities // of the workloads that serve it
	Outlier    mesh.Outlier
	Timeout    time.Duration // to connect
	ByZone     bool          // requests stay in the caller's zone as far as the load is even
	// Sliced is set where endpoints may be outside of the mesh, Outside where some are.
	Sliced, Outside bool
	// Name is the cluster's own name where it is not PortName: a TCP port is also
	// reached under its destinations, and endpoints stay those of PortName.
	Name string
}

// Cluster makes the cluster of a service's port: endpoints over ADS, least request,
// mutual TLS with the exact identities of the service, and the clear only with endpoints
// that are marked as outside of the mesh.
func Cluster(in ClusterIn) *clusterv3.Cluster {
	portName := PortName(in.Service, in.Port.Port)
	c := &clusterv3.Cluster{
		Name:                 in.Name,
		ClusterDiscoveryType: &clusterv3.Cluster_Type{Type: clusterv3.Cluster_EDS},
		EdsClusterConfig:     &clusterv3.Cluster_EdsClusterConfig{EdsConfig: adsSource(), ServiceName: portName},
		ConnectTimeout:       durationpb.New(in.Timeout),
		LoadBalancingPolicy:  balancing(in.ByZone),
		CommonLbConfig: &clusterv3.Cluster_CommonLbConfig{
			// Never "panic" to endpoints known to be down: a clear 503 says more.
			HealthyPanicThreshold: &typev3.Percent{Value: 0},
			// An endpoint that is ejected gets no more requests from now on, not from up to a
			// second later. There is little to merge: no active health checks.
			UpdateMergeWindow: durationpb.New(0),
		},
		CircuitBreakers:  noBreakers(),
		OutlierDetection: outlier(in.Outlier, in.Port.Protocol),
		// A host that is gone from EDS must not linger because it once was healthy.
		IgnoreHealthOnHostRemoval: true,
	}
	if c.Name == "" {
		c.Name = portName
	} else {
		c.AltStatName = portName
	}
	sni := in.Service.Name + "." + in.Service.Namespace
	switch {
	case !in.Port.Protocol.IsHTTP():
		c.TransportSocket = upstreamTLS(sni, in.Identities)
		c.UpstreamConnectionOptions = tcpKeepalive()
	case in.Outside && in.Port.Protocol == mesh.HTTP: // a cluster has one version, and a server outside takes 1.1
		c.TransportSocket = upstreamTLS(sni, in.Identities, "http/1.1")
		c.TypedExtensionProtocolOptions = protocolOptions(false)
		c.UpstreamConnectionOptions = tcpKeepalive()
	default:
		c.TransportSocket = upstreamTLS(sni, in.Identities, "h2")
		c.TypedExtensionProtocolOptions = protocolOptions(true)
	}
	if in.Sliced {
		c.TransportSocketMatches = []*clusterv3.Cluster_TransportSocketMatch{{
			Name: "outside", Match: outsideMatch(), TransportSocket: rawBuffer(),
		}}
	}
	return c
}

// balancing asks of two endpoints at random the one with fewer requests under way. By zone,
// Envoy compares in which zones callers like itself are (SelfName) with those of the
// endpoints: of its requests as many stay in its own as that zone's endpoints can take
// without more than their share, and the others have the rest. See
// https://www.envoyproxy.io/docs/envoy/latest/intro/arch_overview/upstream/load_balancing/zone_aware
func balancing(byZone bool) *clusterv3.LoadBalancingPolicy {
	zones := &lbv3.LocalityLbConfig_ZoneAwareLbConfig{
		RoutingEnabled: &typev3.Percent{Value: 0}, // Envoy's default is to weigh zones
	}
	if byZone {
		zones.RoutingEnabled.Value = 100
		zones.MinClusterSize = wrapperspb.UInt64(1)
		zones.LocalityBasis = lbv3.LocalityLbConfig_ZoneAwareLbConfig_HEALTHY_HOSTS_WEIGHT
	}
	return &clusterv3.LoadBalancingPolicy{Policies: []*clusterv3.LoadBalancingPolicy_Policy{{
		TypedExtensionConfig: &corev3.TypedExtensionConfig{
			Name: "envoy.load_balancing_policies.least_request",
			TypedConfig: message(&leastv3.LeastRequest{LocalityLbConfig: &lbv3.LocalityLbConfig{
				LocalityConfigSpecifier: &lbv3.LocalityLbConfig_ZoneAwareLbConfig_{ZoneAwareLbConfig: zones},
			}}),
		},
	}}}
}

// rawBuffer is a connection in the clear.
func rawBuffer() *corev3.TransportSocket {
	return &corev3.TransportSocket{
		Name:       "envoy.transport_sockets.raw_buffer",
		ConfigType: &corev3.TransportSocket_TypedConfig{TypedConfig: message(&rawv3.RawBuffer{})},
	}
}

// InstanceIn is what the cluster of one workload's own address is made of.
type InstanceIn struct {
	Cluster ClusterIn
	Address netip.AddrPort
}

// Instance makes the cluster that leads to one workload under its own address: how the
// clients of a headless service reach it.
func Instance(in InstanceIn) *clusterv3.Cluster {
	c := Cluster(in.Cluster)
	c.ClusterDiscoveryType = &clusterv3.Cluster_Type{Type: clusterv3.Cluster_STATIC}
	c.EdsClusterConfig = nil
	c.LoadAssignment = assignment(c.Name, socketAddress(in.Address.Addr().String(), in.Address.Port()))
	if in.Cluster.Port.Protocol.IsHTTP() {
		// The bytes are passed on as they are: they may be HTTP/1.1 or 2.
		c.TransportSocket = upstreamTLS(in.Cluster.Service.Name+"."+in.Cluster.Service.Namespace, in.Cluster.Identities)
		c.TypedExtensionProtocolOptions = nil
	}
	return c
}

// noBreakers takes away Envoy's default limits of 1,024 connections and requests and 3
// retries: limits nobody has asked for are outages nobody can explain. Retries are
// bounded by a budget instead, a share of the requests under way.
func noBreakers() *clusterv3.CircuitBreakers {
	all := wrapperspb.UInt32(math.MaxUint32)
	return &clusterv3.CircuitBreakers{Thresholds: []*clusterv3.CircuitBreakers_Thresholds{{
		MaxConnections: all, MaxPendingRequests: all, MaxRequests: all,
		RetryBudget: &clusterv3.CircuitBreakers_Thresholds_RetryBudget{
			BudgetPercent:       &typev3.Percent{Value: 25},
			MinRetryConcurrency: wrapperspb.UInt32(10),
		},
	}}}
}

func outlier(o mesh.Outlier, protocol mesh.Protocol) *clusterv3.OutlierDetection {
	if o.Consecutive == 0 {
		return nil
	}
	d := &clusterv3.OutlierDetection{
		// Failures to connect are counted apart from answers, so that an application's own
		// 5xx do not eject an endpoint that is up.
		SplitExternalLocalOriginErrors: true,
		ConsecutiveLocalOriginFailure:  wrapperspb.UInt32(o.Consecutive),
		BaseEjectionTime:               durationpb.New(o.BaseEjection),
		MaxEjectionPercent:             wrapperspb.UInt32(o.MaxPercent),
		EnforcingConsecutive_5Xx:       wrapperspb.UInt32(0),
		EnforcingSuccessRate:           wrapperspb.UInt32(0),

		EnforcingLocalOriginSuccessRate: wrapperspb.UInt32(0),
	}
	if protocol.IsHTTP() {
		d.ConsecutiveGatewayFailure = wrapperspb.UInt32(o.Consecutive)
		d.EnforcingConsecutiveGatewayFailure = wrapperspb.UInt32(100)
	}
	return d
}

// A node that loses its power closes no connection, and TCP would wait for a quarter of an
// hour. A peer that answers no ping is given up, with the requests that are on their way to
// it; the next ones fail to connect, and go elsewhere.
const (
	keepaliveInterval = 4 * time.Second
	keepaliveTimeout  = 4 * time.Second // a machine that is busy answers late
)

// tcpKeepalive asks the peer's kernel, where the protocol has no pings, after the same time and
// as patiently. It is for connections on which we wait: while bytes are under way to a peer
// that is gone, TCP sends those again instead, and gives up late. (TCP_USER_TIMEOUT would end
// that; it ends connections to peers that do not read for a while, too.)
func tcpKeepalive() *clusterv3.UpstreamConnectionOptions {
	return &clusterv3.UpstreamConnectionOptions{TcpKeepalive: &corev3.TcpKeepalive{
		KeepaliveTime:     wrapperspb.UInt32(uint32(keepaliveInterval / time.Second)),
		KeepaliveInterval: wrapperspb.UInt32(uint32(keepaliveTimeout / 2 / time.Second)),
		KeepaliveProbes:   wrapperspb.UInt32(2),
	}}
}

// protocolOptions fixes the HTTP version towards an upstream.
func protocolOptions(http2 bool) map[string]*anypb.Any {
	explicit := &httpv3.HttpProtocolOptions_ExplicitHttpConfig{
		ProtocolConfig: &httpv3.HttpProtocolOptions_ExplicitHttpConfig_HttpProtocolOptions{
			HttpProtocolOptions: &corev3.Http1ProtocolOptions{},
		},
	}
	if http2 {
		explicit.ProtocolConfig = &httpv3.HttpProtocolOptions_ExplicitHttpConfig_Http2ProtocolOptions{
			// AllowConnect carries WebSocket over HTTP/2 (RFC 8441).
			Http2ProtocolOptions: &corev3.Http2ProtocolOptions{AllowConnect: true, ConnectionKeepalive: &corev3.KeepaliveSettings{
				Interval: durationpb.New(keepaliveInterval),
				Timeout:  durationpb.New(keepaliveTimeout),
			}},
		}
	}
	return map[string]*anypb.Any{
		"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": message(&httpv3.HttpProtocolOptions{
			UpstreamProtocolOptions: &httpv3.HttpProtocolOptions_ExplicitHttpConfig_{ExplicitHttpConfig: explicit},
		}),
	}
}

// FrontIn is what the cluster of a virtual address and HTTP port is made of.
type FrontIn struct {
	Service mesh.Name
	Port    uint16
	Address netip.Addr
}

// Front makes the cluster that leads from an original destination to the internal
// listener with the routes of the port.
func Front(in FrontIn) *clusterv3.Cluster {
	name := DestinationName(in.Address, in.Port)
	listener := PortName(in.Service, in.Port)
	return &clusterv3.Cluster{
		Name:                 name,
		AltStatName:          "front|" + listener,
		ClusterDiscoveryType: &clusterv3.Cluster_Type{Type: clusterv3.Cluster_STATIC},
		CircuitBreakers:      noBreakers(),
		TransportSocket: &corev3.TransportSocket{
			Name: "envoy.transport_sockets.internal_upstream",
			ConfigType: &corev3.TransportSocket_TypedConfig{TypedConfig: message(&internalv3.InternalUpstreamTransport{
				TransportSocket: rawBuffer(),
			})},
		},
		LoadAssignment: assignment(name, &corev3.Address{Address: &corev3.Address_EnvoyInternalAddress{
			EnvoyInternalAddress: &corev3.EnvoyInternalAddress{
				AddressNameSpecifier: &corev3.EnvoyInternalAddress_ServerListenerName{ServerListenerName: listener},
			},
		}}),
	}
}

// LocalIn is what the cluster of the application's own port is made of.
type LocalIn struct {
	Port     uint16 // as services know it
	Listen   uint16 // where the application really is; 0 = Port
	Protocol mesh.Protocol
	// Address is where the application is asked, from a source address that the capture
	// rules know; none = 127.0.0.1. In a pod it is the pod's own, as it is without a mesh.
	Address netip.Addr
}

// inboundSource4 and inboundSource6 are the addresses from which the proxy calls the
// application at the pod's own address; proxy/capture lets what comes from there pass.
const (
	inboundSource4 = "127.0.0.6"
	inboundSource6 = "::6"
)

// Local makes the cluster that hands requests to the application on this machine.
func Local(in LocalIn) *clusterv3.Cluster {
	c := &clusterv3.Cluster{
		Name:                 LocalName(in.Port),
		ClusterDiscoveryType: &clusterv3.Cluster_Type{Type: clusterv3.Cluster_STATIC},
		CircuitBreakers:      noBreakers(),
		ConnectTimeout:       durationpb.New(time.Second), // loopback answers at once or not at all
		LoadAssignment:       assignment(LocalName(in.Port), socketAddress("127.0.0.1", cmp.Or(in.Listen, in.Port))),
	}
	if in.Address.IsValid() {
		source := inboundSource4
		if in.Address.Is6() {
			source = inboundSource6
		}
		c.LoadAssignment = assignment(c.Name, socketAddress(in.Address.String(), in.Port))
		c.UpstreamBindConfig = &corev3.BindConfig{SourceAddress: socketAddress(source, 0).GetSocketAddress()}
	}
	if in.Protocol.IsHTTP() {
		c.TypedExtensionProtocolOptions = protocolOptions(in.Protocol != mesh.HTTP)
	}
	return c
}

// Passthrough makes the cluster that leads to wherever the application meant to go.
func Passthrough() *clusterv3.Cluster {
	return &clusterv3.Cluster{
		Name:                 PassthroughName,
		ClusterDiscoveryType: &clusterv3.Cluster_Type{Type: clusterv3.Cluster_ORIGINAL_DST},
		LbPolicy:             clusterv3.Cluster_CLUSTER_PROVIDED,
		ConnectTimeout:       durationpb.New(10 * time.Second),
		CircuitBreakers:      noBreakers(),
	}
}

func assignment(cluster string, addr *corev3.Address) *endpointv3.ClusterLoadAssignment {
	return &endpointv3.ClusterLoadAssignment{
		ClusterName: cluster,
		Endpoints: []*endpointv3.LocalityLbEndpoints{{LbEndpoints: []*endpointv3.LbEndpoint{{
			HostIdentifier: &endpointv3.LbEndpoint_Endpoint{Endpoint: &endpointv3.Endpoint{Address: addr}},
		}}}},
	}
}

func socketAddress(ip string, port uint16) *corev3.Address {
	return &corev3.Address{Address: &corev3.Address_SocketAddress{SocketAddress: &corev3.SocketAddress{
		Address:       ip,
		PortSpecifier: &corev3.SocketAddress_PortValue{PortValue: uint32(port)},
	}}}
}
