package translate

import (
	"net/netip"
	"strconv"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/heddle-mesh/heddle/controlplane/mesh"
	"github.com/heddle-mesh/heddle/discovery/dns/namepb"
)

// Resource types, as xDS names them.
const (
	ClusterType   = "type.googleapis.com/envoy.config.cluster.v3.Cluster"
	EndpointsType = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment"
	ListenerType  = "type.googleapis.com/envoy.config.listener.v3.Listener"
	RoutesType    = "type.googleapis.com/envoy.config.route.v3.RouteConfiguration"
	SecretType    = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret"
	RuntimeType   = "type.googleapis.com/envoy.service.runtime.v3.Runtime"
	HostType      = namepb.TypeURL
)

// Ports of the proxy in a captured workload's network namespace.
const (
	OutboundPort      = 15001
	InboundListenPort = 15006
)

// Names of resources that exist once.
const (
	OutboundName    = "outbound"
	InboundName     = "inbound"
	PassthroughName = "passthrough"
	RuntimeName     = "mesh"          // as the proxy's bootstrap names the layer
	SelfName        = "self"          // as the proxy's bootstrap names the cluster that it is one of
	GatewayPlain    = "gateway|http"  // of a gateway: its listener, and the routes of that
	GatewaySecure   = "gateway|https" // of a gateway: its listener
)

// Names that the proxy's bootstrap and the agent serve.
const (
	TelemetryCluster = "otlp"    // takes OTLP over gRPC
	SecretsCluster   = "sds"     // private keys, from the agent
	SVIDSecret       = "default" // SPIRE's name for "the workload's own SVID"
	BundleSecret     = "ROOTCA"  // SPIRE's name for "the trust bundle"
)

// PortName names everything that belongs to one port of a service.
func PortName(service mesh.Name, port uint16) string {
	return service.Name + "." + service.Namespace + ":" + strconv.Itoa(int(port))
}

// DestinationName names the cluster that the capture listener picks for an original
// destination. Envoy makes the same string with dst|%DOWNSTREAM_LOCAL_ADDRESS%.
func DestinationName(addr netip.Addr, port uint16) string {
	return "dst|" + netip.AddrPortFrom(addr, port).String()
}

// LocalName names the cluster of the application's own port.
func LocalName(port uint16) string { return "app|" + strconv.Itoa(int(port)) }

// GatewaySecureName names the routes of a host that a gateway serves over TLS.
func GatewaySecureName(host string) string { return GatewaySecure + "|" + host }

// CertificateName names a certificate that a gateway shows.
func CertificateName(secret mesh.Name) string { return "certificate|" + secret.String() }

// MissingName names a backend that a route refers to and that does not exist, or that
// the route may not refer to. No cluster ever has such a name, and the router answers
// 500 for it as Gateway API says.
func MissingName(service mesh.Name, port uint16) string { return "missing|" + PortName(service, port) }

// message packs a message whose type is known to be valid.
func message(m proto.Message) *anypb.Any {
	a := new(anypb.Any)
	if err := anypb.MarshalFrom(a, m, proto.MarshalOptions{Deterministic: true}); err != nil {
		// Only invalid UTF-8 can fail here, and the sources refuse that at the edge.
		panic("translate: encode " + string(m.ProtoReflect().Descriptor().FullName()) + ": " + err.Error())
	}
	return a
}
