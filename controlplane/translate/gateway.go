package translate

import (
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	inspectorv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/listener/tls_inspector/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/heddle-mesh/heddle/controlplane/mesh"
)

// GatewayIn is what the listeners of a gateway are made of. As with Members, one pointer
// to an Edge is one value.
type GatewayIn struct {
	Edge          *mesh.Edge
	IPv6          bool // listen on [::] too
	TraceSampling float64
}

// GatewayListener makes the listener of a gateway for requests in the clear.
func GatewayListener(in GatewayIn) *listenerv3.Listener {
	l := gatewayListener(GatewayPlain, mesh.GatewayPlainPort, in.IPv6)
	l.FilterChains = []*listenerv3.FilterChain{edgeChain(GatewayPlain, in.TraceSampling)}
	return l
}

// GatewaySecureListener makes the listener of a gateway for TLS: a chain for each host with
// a certificate, found by SNI. Who asks for another host is not answered.
func GatewaySecureListener(in GatewayIn) *listenerv3.Listener {
	l := gatewayListener(GatewaySecure, mesh.GatewaySecurePort, in.IPv6)
	l.ListenerFilters = []*listenerv3.ListenerFilter{{
		Name:       "envoy.filters.listener.tls_inspector",
		ConfigType: &listenerv3.ListenerFilter_TypedConfig{TypedConfig: message(&inspectorv3.TlsInspector{})},
	}}
	l.AccessLog = accessLog(handshakeLogFields, handshakeFailed)
	for _, h := range in.Edge.Hosts {
		if h.Certificate == (mesh.Name{}) {
			continue
		}
		chain := edgeChain(GatewaySecureName(h.Name), in.TraceSampling)
		chain.FilterChainMatch = &listenerv3.FilterChainMatch{TransportProtocol: "tls"}
		if h.Name != "" {
			chain.FilterChainMatch.ServerNames = []string{h.Name}
		}
		chain.TransportSocket = edgeTLS(CertificateName(h.Certificate))
		chain.TransportSocketConnectTimeout = durationpb.New(edgePatience)
		l.FilterChains = append(l.FilterChains, chain)
	}
	return closedIfEmpty(l)
}

func gatewayListener(name string, port uint16, ipv6 bool) *listenerv3.Listener {
	l := &listenerv3.Listener{
		Name:             name,
		TrafficDirection: corev3.TrafficDirection_INBOUND,
		Address:          socketAddress("0.0.0.0", port),
		// What a client may make us hold, of one connection.
		PerConnectionBufferLimitBytes: wrapperspb.UInt32(32 << 10),
		ListenerFiltersTimeout:        durationpb.New(edgePatience),
	}
	if ipv6 {
		l.AdditionalAddresses = []*listenerv3.AdditionalAddress{{Address: socketAddress("::", port)}}
	}
	return l
}

func edgeChain(routes string, sampling float64) *listenerv3.FilterChain {
	return &listenerv3.FilterChain{
		Name: routes,
		Filters: []*listenerv3.Filter{networkFilter("envoy.filters.network.http_connection_manager",
			message(withRDS(edgeManager(routes, sampling), routes)))},
	}
}

// edgeTLS shows a certificate to anybody. It comes over ADS, as the control plane has it
// from a Secret, and its change touches no connection.
func edgeTLS(certificate string) *corev3.TransportSocket {
	return &corev3.TransportSocket{
		Name: "envoy.transport_sockets.tls",
		ConfigType: &corev3.TransportSocket_TypedConfig{TypedConfig: message(&tlsv3.DownstreamTlsContext{
			CommonTlsContext: &tlsv3.CommonTlsContext{
				// Browsers and clients that are not ours: 1.2 is what is not known to be broken.
				TlsParams:     &tlsv3.TlsParameters{TlsMinimumProtocolVersion: tlsv3.TlsParameters_TLSv1_2},
				AlpnProtocols: []string{"h2", "http/1.1"},
				TlsCertificateSdsSecretConfigs: []*tlsv3.SdsSecretConfig{{
					Name: certificate, SdsConfig: adsSource(),
				}},
			},
		})},
	}
}

// CertificateIn is what the secret of a gateway is made of.
type CertificateIn struct{ Certificate *mesh.Certificate }

// Certificate makes the secret with a certificate and its key.
func Certificate(in CertificateIn) *tlsv3.Secret {
	inline := func(text string) *corev3.DataSource {
		return &corev3.DataSource{Specifier: &corev3.DataSource_InlineString{InlineString: text}}
	}
	return &tlsv3.Secret{
		Name: CertificateName(in.Certificate.Name),
		Type: &tlsv3.Secret_TlsCertificate{TlsCertificate: &tlsv3.TlsCertificate{
			CertificateChain: inline(in.Certificate.Chain),
			PrivateKey:       inline(string(in.Certificate.Key)), // the conversion is the one place that reveals it
		}},
	}
}
