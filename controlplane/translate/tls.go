package translate

import (
	"slices"
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// Identities is a sorted list of SPIFFE IDs in a comparable form: one a line.
type Identities string

// NewIdentities joins URIs; order and repetition do not matter.
func NewIdentities(uris ...string) Identities {
	uris = slices.Clone(uris)
	slices.Sort(uris)
	return Identities(strings.Join(slices.Compact(uris), "\n"))
}

// List gives the URIs in order.
func (ids Identities) List() []string {
	if ids == "" {
		return nil
	}
	return strings.Split(string(ids), "\n")
}

// adsSource says "over the stream that this configuration came on".
func adsSource() *corev3.ConfigSource {
	return &corev3.ConfigSource{
		ResourceApiVersion:    corev3.ApiVersion_V3,
		ConfigSourceSpecifier: &corev3.ConfigSource_Ads{Ads: &corev3.AggregatedConfigSource{}},
	}
}

// secret says that the agent on this machine serves a secret: private keys never cross it.
func secret(name string) *tlsv3.SdsSecretConfig {
	return &tlsv3.SdsSecretConfig{
		Name: name,
		SdsConfig: &corev3.ConfigSource{
			ResourceApiVersion: corev3.ApiVersion_V3,
			ConfigSourceSpecifier: &corev3.ConfigSource_ApiConfigSource{ApiConfigSource: &corev3.ApiConfigSource{
				ApiType:             corev3.ApiConfigSource_DELTA_GRPC,
				TransportApiVersion: corev3.ApiVersion_V3,
				GrpcServices: []*corev3.GrpcService{{
					TargetSpecifier: &corev3.GrpcService_EnvoyGrpc_{
						EnvoyGrpc: &corev3.GrpcService_EnvoyGrpc{ClusterName: SecretsCluster},
					},
				}},
			}},
		},
	}
}

// commonTLS is what both ends of a connection say: TLS 1.3 only, since both are ours;
// our own SVID; and which peers we take.
func commonTLS(alpn []string, peers ...*matcherv3.StringMatcher) *tlsv3.CommonTlsContext {
	var sans []*tlsv3.SubjectAltNameMatcher
	for _, p := range peers {
		sans = append(sans, &tlsv3.SubjectAltNameMatcher{SanType: tlsv3.SubjectAltNameMatcher_URI, Matcher: p})
	}
	return &tlsv3.CommonTlsContext{
		TlsParams: &tlsv3.TlsParameters{
			TlsMinimumProtocolVersion: tlsv3.TlsParameters_TLSv1_3,
			TlsMaximumProtocolVersion: tlsv3.TlsParameters_TLSv1_3,
		},
		AlpnProtocols:                  alpn,
		TlsCertificateSdsSecretConfigs: []*tlsv3.SdsSecretConfig{secret(SVIDSecret)},
		ValidationContextType: &tlsv3.CommonTlsContext_CombinedValidationContext{
			CombinedValidationContext: &tlsv3.CommonTlsContext_CombinedCertificateValidationContext{
				DefaultValidationContext:         &tlsv3.CertificateValidationContext{MatchTypedSubjectAltNames: sans},
				ValidationContextSdsSecretConfig: secret(BundleSecret),
			},
		},
	}
}

// upstreamTLS authenticates us and demands one of exactly the given identities.
func upstreamTLS(sni string, ids Identities, alpn ...string) *corev3.TransportSocket {
	var peers []*matcherv3.StringMatcher
	for _, id := range ids.List() {
		peers = append(peers, exactMatch(id))
	}
	return &corev3.TransportSocket{
		Name: "envoy.transport_sockets.tls",
		ConfigType: &corev3.TransportSocket_TypedConfig{TypedConfig: message(&tlsv3.UpstreamTlsContext{
			Sni:              sni,
			CommonTlsContext: commonTLS(alpn, peers...),
		})},
	}
}

func exactMatch(value string) *matcherv3.StringMatcher {
	return &matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_Exact{Exact: value}}
}

// anyOf is every caller of the trust domain.
func anyOf(trustDomain string) []*matcherv3.StringMatcher {
	return []*matcherv3.StringMatcher{prefixMatch("spiffe://" + trustDomain + "/")}
}

func prefixMatch(prefix string) *matcherv3.StringMatcher {
	return &matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_Prefix{Prefix: prefix}}
}

// regexMatch takes a string that the expression matches as a whole.
func regexMatch(expression string) *matcherv3.StringMatcher {
	return &matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_SafeRegex{
		SafeRegex: &matcherv3.RegexMatcher{Regex: expression},
	}}
}

// downstreamTLS demands from every caller a certificate with one of the given names, for
// every connection: a session that is resumed would not show it again, and could outlive
// the certificate.
func downstreamTLS(callers []*matcherv3.StringMatcher, alpn ...string) *corev3.TransportSocket {
	return &corev3.TransportSocket{
		Name: "envoy.transport_sockets.tls",
		ConfigType: &corev3.TransportSocket_TypedConfig{TypedConfig: message(&tlsv3.DownstreamTlsContext{
			RequireClientCertificate:         wrapperspb.Bool(true),
			CommonTlsContext:                 commonTLS(alpn, callers...),
			SessionTicketKeysType:            &tlsv3.DownstreamTlsContext_DisableStatelessSessionResumption{DisableStatelessSessionResumption: true},
			DisableStatefulSessionResumption: true,
		})},
	}
}
