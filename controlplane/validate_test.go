package controlplane

import (
	"math/rand/v2"
	"testing"

	bootstrapv3 "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	internallistenerv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/bootstrap/internal_listener/v3"
	routerv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/router/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/heddle-mesh/heddle/controlplane/mesh"
	"github.com/heddle-mesh/heddle/controlplane/translate"
	"github.com/heddle-mesh/heddle/controlplane/xds"
	"github.com/heddle-mesh/heddle/install/parts/partstest"
	"github.com/heddle-mesh/heddle/proxy/envoy"
)

// TestEnvoyAcceptsRandomMeshes lets the real Envoy judge what random meshes become.
func TestEnvoyAcceptsRandomMeshes(t *testing.T) {
	bin := partstest.Envoy(t)
	for seed := range uint64(8) {
		cache := xds.NewCache()
		p, err := NewPipeline(mesh.DefaultMeshConfig(), cache, testPrefixes...)
		if err != nil {
			t.Fatal(err)
		}
		random := changer{rand.New(rand.NewPCG(seed, 3))}
		for range 40 {
			if _, err := p.Submit(random.changes()); err != nil {
				t.Fatal(err)
			}
		}
		if err := envoy.Validate(t.Context(), bin, staticBootstrap(t, cache)); err != nil {
			t.Errorf("seed %d: %v", seed, err)
		}
	}
}

// staticBootstrap puts everything in a cache into one bootstrap, so that Envoy's
// validation sees it. Resources that differ only by their variant get names of their
// own, endpoints and routes get a cluster and a listener to be in.
func staticBootstrap(t *testing.T, cache *xds.Cache) []byte {
	t.Helper()
	agent := &clusterv3.Cluster{Name: translate.SecretsCluster, ClusterDiscoveryType: &clusterv3.Cluster_Type{Type: clusterv3.Cluster_STATIC}}
	otlp := proto.Clone(agent).(*clusterv3.Cluster)
	otlp.Name = translate.TelemetryCluster
	b := &bootstrapv3.Bootstrap{
		Node: &corev3.Node{Id: "validate", Cluster: "validate"},
		DynamicResources: &bootstrapv3.Bootstrap_DynamicResources{AdsConfig: &corev3.ApiConfigSource{
			ApiType: corev3.ApiConfigSource_DELTA_GRPC, TransportApiVersion: corev3.ApiVersion_V3,
			GrpcServices: []*corev3.GrpcService{{TargetSpecifier: &corev3.GrpcService_EnvoyGrpc_{
				EnvoyGrpc: &corev3.GrpcService_EnvoyGrpc{ClusterName: translate.SecretsCluster},
			}}},
		}},
		LayeredRuntime:      runtime(t),
		StaticResources:     &bootstrapv3.Bootstrap_StaticResources{Clusters: []*clusterv3.Cluster{agent, otlp}},
		BootstrapExtensions: []*corev3.TypedExtensionConfig{{Name: "envoy.bootstrap.internal_listener", TypedConfig: pack(t, &internallistenerv3.InternalListener{})}},
	}
	for r := range cache.All() {
		if r.Type == translate.HostType {
			continue
		}
		m, err := r.Message().UnmarshalNew()
		if err != nil {
			t.Fatal(err)
		}
		addStatic(t, b.StaticResources, r, m)
	}
	out, err := protojson.Marshal(b)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func addStatic(t *testing.T, to *bootstrapv3.Bootstrap_StaticResources, r *xds.Resource, m proto.Message) {
	t.Helper()
	name := r.Name
	if r.Variant != "" {
		name += "@" + r.Variant
	}
	switch m := m.(type) {
	case *clusterv3.Cluster:
		m.Name = name
		to.Clusters = append(to.Clusters, m)
	case *endpointv3.ClusterLoadAssignment:
		to.Clusters = append(to.Clusters, &clusterv3.Cluster{
			Name: "eds@" + name, LoadAssignment: m,
			ClusterDiscoveryType: &clusterv3.Cluster_Type{Type: clusterv3.Cluster_STATIC},
		})
	case *listenerv3.Listener:
		m.Name = name
		// Listeners of different proxies may share an address; in one Envoy they cannot.
		addresses := []*corev3.Address{m.Address}
		for _, a := range m.AdditionalAddresses {
			addresses = append(addresses, a.Address)
		}
		for _, a := range addresses {
			if socket := a.GetSocketAddress(); socket != nil {
				socket.PortSpecifier = &corev3.SocketAddress_PortValue{PortValue: uint32(20000 + len(to.Listeners))}
			}
		}
		to.Listeners = append(to.Listeners, m)
	case *tlsv3.Secret:
		m.Name = name
		to.Secrets = append(to.Secrets, m)
	case *routev3.RouteConfiguration:
		m.ValidateClusters = wrapperspb.Bool(false)
		to.Listeners = append(to.Listeners, routesListener(t, name, m))
	}
}

func routesListener(t *testing.T, name string, rc *routev3.RouteConfiguration) *listenerv3.Listener {
	t.Helper()
	return &listenerv3.Listener{
		Name:              "rds@" + name,
		ListenerSpecifier: &listenerv3.Listener_InternalListener{InternalListener: &listenerv3.Listener_InternalListenerConfig{}},
		FilterChains: []*listenerv3.FilterChain{{Filters: []*listenerv3.Filter{{
			Name: "envoy.filters.network.http_connection_manager",
			ConfigType: &listenerv3.Filter_TypedConfig{TypedConfig: pack(t, &hcmv3.HttpConnectionManager{
				StatPrefix:     "x",
				RouteSpecifier: &hcmv3.HttpConnectionManager_RouteConfig{RouteConfig: rc},
				HttpFilters: []*hcmv3.HttpFilter{{
					Name:       "envoy.filters.http.router",
					ConfigType: &hcmv3.HttpFilter_TypedConfig{TypedConfig: pack(t, &routerv3.Router{})},
				}},
			})},
		}}}},
	}
}

func pack(t *testing.T, m proto.Message) *anypb.Any {
	t.Helper()
	a, err := anypb.New(m)
	if err != nil {
		t.Fatal(err)
	}
	return a
}
