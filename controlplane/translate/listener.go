package translate

import (
	"net/netip"
	"slices"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	setstatev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/common/set_filter_state/v3"
	originaldstv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/listener/original_dst/v3"
	netstatev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/set_filter_state/v3"
	tcpv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/tcp_proxy/v3"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/heddle-mesh/heddle/controlplane/mesh"
)

// CaptureIn is what the outbound capture listener is made of: nothing of any service.
type CaptureIn struct {
	// Prefixes hold the mesh's own addresses, a comma between them. What is outside of
	// them is passed through untouched.
	Prefixes string
	IPv6     bool // listen on [::1] too
	// Instances are addresses outside of the prefixes that are of the mesh, in the same
	// form: the pods of headless services.
	Instances string
}

// Capture makes the listener that takes every captured outbound connection and finds
// its cluster by the original destination.
func Capture(in CaptureIn) *listenerv3.Listener {
	l := &listenerv3.Listener{
		Name:             OutboundName,
		TrafficDirection: corev3.TrafficDirection_OUTBOUND,
		// Loopback only: a redirected connection arrives there, a stranger's cannot.
		Address:         socketAddress("127.0.0.1", OutboundPort),
		ListenerFilters: []*listenerv3.ListenerFilter{originalDestination()},
		FilterChains:    []*listenerv3.FilterChain{destinationChain("mesh", in.Prefixes)},
		DefaultFilterChain: &listenerv3.FilterChain{
			Name:    PassthroughName,
			Filters: []*listenerv3.Filter{tcpProxy(PassthroughName, PassthroughName)},
		},
	}
	// A chain for each: one that comes or goes leaves the connections of the others alone.
	for _, prefix := range Identities(in.Instances).List() {
		l.FilterChains = append(l.FilterChains, destinationChain("instance|"+prefix, prefix))
	}
	if in.IPv6 {
		l.AdditionalAddresses = []*listenerv3.AdditionalAddress{{Address: socketAddress("::1", OutboundPort)}}
	}
	return l
}

// destinationChain is the chain for connections to some prefixes, which gives each to the
// cluster of its original destination.
func destinationChain(name, prefixes string) *listenerv3.FilterChain {
	return &listenerv3.FilterChain{
		Name:             name,
		FilterChainMatch: &listenerv3.FilterChainMatch{PrefixRanges: prefixRanges(prefixes)},
		Filters: []*listenerv3.Filter{
			networkFilter("envoy.filters.network.set_filter_state", message(&netstatev3.Config{
				OnNewConnection: []*setstatev3.FilterStateValue{{
					Key: &setstatev3.FilterStateValue_ObjectKey{ObjectKey: "envoy.tcp_proxy.cluster"},
					Value: &setstatev3.FilterStateValue_FormatString{FormatString: &corev3.SubstitutionFormatString{
						Format: &corev3.SubstitutionFormatString_TextFormatSource{TextFormatSource: &corev3.DataSource{
							Specifier: &corev3.DataSource_InlineString{InlineString: "dst|%DOWNSTREAM_LOCAL_ADDRESS%"},
						}},
					}},
				}},
			})),
			// The cluster named here is never asked for: the filter state goes before it.
			onDemandProxy("mesh", "dst"),
		},
	}
}

func prefixRanges(prefixes string) []*corev3.CidrRange {
	var out []*corev3.CidrRange
	for _, s := range Identities(prefixes).List() {
		p := netip.MustParsePrefix(s) // written by netip.Prefix.String
		out = append(out, &corev3.CidrRange{AddressPrefix: p.Addr().String(), PrefixLen: wrapperspb.UInt32(uint32(p.Bits()))})
	}
	return out
}

// Prefixes puts address ranges in the comparable form that CaptureIn wants.
func Prefixes(ps ...netip.Prefix) string {
	var texts []string
	for _, p := range ps {
		texts = append(texts, p.Masked().String())
	}
	return string(NewIdentities(texts...))
}

func originalDestination() *listenerv3.ListenerFilter {
	return &listenerv3.ListenerFilter{
		Name:       "envoy.filters.listener.original_dst",
		ConfigType: &listenerv3.ListenerFilter_TypedConfig{TypedConfig: message(&originaldstv3.OriginalDst{})},
	}
}

func tcpProxy(stat, cluster string) *listenerv3.Filter {
	return networkFilter("envoy.filters.network.tcp_proxy", message(tcpProxyTo(stat, cluster)))
}

// fetchTimeout is how long a connection waits for the configuration of its destination. The
// control plane answers in milliseconds, and for what does not exist at once.
const fetchTimeout = 5 * time.Second

// onDemandProxy asks the control plane for a cluster that is not there.
func onDemandProxy(stat, cluster string) *listenerv3.Filter {
	proxy := tcpProxyTo(stat, cluster)
	proxy.OnDemand = &tcpv3.TcpProxy_OnDemand{OdcdsConfig: adsSource(), Timeout: durationpb.New(fetchTimeout)}
	return networkFilter("envoy.filters.network.tcp_proxy", message(proxy))
}

// admittedProxy connects the program when the caller's handshake is done, and not for
// those whose handshake fails.
func admittedProxy(stat, cluster string) *listenerv3.Filter {
	proxy := tcpProxyTo(stat, cluster)
	proxy.UpstreamConnectMode = tcpv3.UpstreamConnectMode_ON_DOWNSTREAM_TLS_HANDSHAKE
	proxy.MaxEarlyDataBytes = wrapperspb.UInt32(0)
	proxy.AccessLog = accessLog(connectionLogFields, handshakeDone)
	return networkFilter("envoy.filters.network.tcp_proxy", message(proxy))
}

func tcpProxyTo(stat, cluster string) *tcpv3.TcpProxy {
	return &tcpv3.TcpProxy{
		StatPrefix:       stat,
		ClusterSpecifier: &tcpv3.TcpProxy_Cluster{Cluster: cluster},
		IdleTimeout:      durationpb.New(0), // a database connection may be quiet for days
		AccessLog:        accessLog(connectionLogFields),
	}
}

// ServiceListenerIn is what the internal listener of a service's HTTP port is made of.
type ServiceListenerIn struct {
	Service       mesh.Name
	Port          uint16
	TraceSampling float64 // percent
}

// ServiceListener makes the internal listener that applies a service's routes. It does
// not know them: they come by RDS, so that their change leaves the listener alone.
func ServiceListener(in ServiceListenerIn) *listenerv3.Listener {
	name := PortName(in.Service, in.Port)
	return &listenerv3.Listener{
		Name:              name,
		TrafficDirection:  corev3.TrafficDirection_OUTBOUND,
		ListenerSpecifier: &listenerv3.Listener_InternalListener{InternalListener: &listenerv3.Listener_InternalListenerConfig{}},
		FilterChains:      []*listenerv3.FilterChain{routedChain(name, in.TraceSampling)},
	}
}

func routedChain(name string, sampling float64) *listenerv3.FilterChain {
	return &listenerv3.FilterChain{
		Name: name,
		Filters: []*listenerv3.Filter{networkFilter("envoy.filters.network.http_connection_manager",
			message(withRDS(connectionManager(name, sampling), name)))},
	}
}

// UpstreamIn is what the listener of one upstream of an explicit sidecar is made of.
type UpstreamIn struct {
	Service       mesh.Name
	Port          uint16
	Protocol      mesh.Protocol
	Local         netip.AddrPort
	TraceSampling float64 // percent; nothing to a port that does not speak HTTP
}

// Upstream makes the listener under which an application without capture reaches one
// port of a service.
func Upstream(in UpstreamIn) *listenerv3.Listener {
	name := PortName(in.Service, in.Port)
	chain := routedChain(name, in.TraceSampling)
	if !in.Protocol.IsHTTP() {
		chain = &listenerv3.FilterChain{Name: name, Filters: []*listenerv3.Filter{tcpProxy(name, name)}}
	}
	return &listenerv3.Listener{
		Name:             UpstreamName(in.Local),
		StatPrefix:       name,
		TrafficDirection: corev3.TrafficDirection_OUTBOUND,
		Address:          socketAddress(in.Local.Addr().String(), in.Local.Port()),
		FilterChains:     []*listenerv3.FilterChain{chain},
	}
}

// UpstreamName names the listener of an upstream's local address.
func UpstreamName(local netip.AddrPort) string { return "upstream|" + local.String() }

// sortedPorts gives the ports of an inbound listener in order, so that equal inputs make
// equal bytes.
func sortedPorts(ports []InboundPort) []InboundPort {
	return slices.SortedFunc(slices.Values(ports), func(a, b InboundPort) int { return int(a.App) - int(b.App) })
}
