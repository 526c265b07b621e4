package controlplane

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	bootstrapv3 "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/heddle-mesh/heddle/controlplane/translate"
	"github.com/heddle-mesh/heddle/controlplane/xds"
	"github.com/heddle-mesh/heddle/controlplane/xds/xdstest"
	"github.com/heddle-mesh/heddle/install/parts/partstest"
	"github.com/heddle-mesh/heddle/proxy/bootstrap"
	"github.com/heddle-mesh/heddle/proxy/envoy"
)

// wiring puts a whole mesh into one Envoy, over Unix sockets. A request
// takes the road it takes in life, from the caller's listener over the routes and the
// cluster to the inbound listener of a workload and its program; ports of workloads must
// differ, since sockets are named for them.
type wiring struct {
	t     *testing.T
	dir   string
	cache *xds.Cache
	to    *bootstrapv3.Bootstrap_StaticResources
	own   *certificate // of the inbound ports; nil = no TLS
}

// service is the socket on which a service's port is called.
func (w *wiring) service(port string) string { return filepath.Join(w.dir, port) }

// program is the socket on which the program of a workload's port must listen.
func (w *wiring) program(port uint32) string { return filepath.Join(w.dir, fmt.Sprint("app-", port)) }

func (w *wiring) workload(port uint32) string { return filepath.Join(w.dir, fmt.Sprint("in-", port)) }

func pipe(path string) *corev3.Address {
	return &corev3.Address{Address: &corev3.Address_Pipe{Pipe: &corev3.Pipe{Path: path, Mode: 0o600}}}
}

// wire builds the configuration from what a cache holds.
func wire(t *testing.T, cache *xds.Cache, own *certificate) *wiring {
	w := &wiring{t: t, dir: xdstest.Dir(t), cache: cache, own: own, to: &bootstrapv3.Bootstrap_StaticResources{
		Clusters: []*clusterv3.Cluster{{
			Name: translate.TelemetryCluster, ClusterDiscoveryType: &clusterv3.Cluster_Type{Type: clusterv3.Cluster_STATIC},
		}},
	}}
	for r := range cache.All() {
		switch r.Type {
		case translate.ClusterType:
			w.cluster(get[*clusterv3.Cluster](w, r.Key))
		case translate.ListenerType:
			w.listener(get[*listenerv3.Listener](w, r.Key), r.Variant)
		}
	}
	return w
}

func get[M proto.Message](w *wiring, key xds.Key) M {
	w.t.Helper()
	r := w.cache.Get(key)
	if r == nil {
		w.t.Fatalf("there is no %s", key)
	}
	m, err := r.Message().UnmarshalNew()
	if err != nil {
		w.t.Fatal(err)
	}
	return m.(M)
}

// cluster adds the clusters of services and of programs.
func (w *wiring) cluster(c *clusterv3.Cluster) {
	socket := w.program
	switch {
	case c.EdsClusterConfig != nil && c.AltStatName == "":
		c.LoadAssignment = get[*endpointv3.ClusterLoadAssignment](w, xds.Key{Type: translate.EndpointsType, Name: c.Name})
		c.ClusterDiscoveryType = &clusterv3.Cluster_Type{Type: clusterv3.Cluster_STATIC}
		c.EdsClusterConfig, c.TransportSocket = nil, nil
		socket = w.workload
	case c.LoadAssignment == nil || c.TransportSocket != nil:
		return // to an original destination, or by way of one
	}
	for _, locality := range c.LoadAssignment.Endpoints {
		for _, e := range locality.LbEndpoints {
			endpoint := e.GetEndpoint()
			endpoint.Address = pipe(socket(endpoint.Address.GetSocketAddress().GetPortValue()))
			endpoint.AdditionalAddresses = nil
		}
	}
	w.to.Clusters = append(w.to.Clusters, c)
}

// listener adds the listeners of services with their routes in them, and each inbound
// port as a listener of its own.
func (w *wiring) listener(l *listenerv3.Listener, variant string) {
	if l.GetInternalListener() != nil {
		w.add(w.service(l.Name), l.FilterChains[0], variant)
	}
	if l.Name == translate.InboundName {
		for _, chain := range l.FilterChains {
			w.add(w.workload(chain.FilterChainMatch.DestinationPort.GetValue()), chain, variant)
			w.to.Listeners[len(w.to.Listeners)-1].AccessLog = proto.Clone(l).(*listenerv3.Listener).AccessLog
		}
	}
}

func (w *wiring) add(socket string, chain *listenerv3.FilterChain, variant string) {
	w.t.Helper()
	chain.FilterChainMatch, chain.TransportSocket = nil, w.security(chain.TransportSocket)
	for _, f := range chain.Filters {
		hcm := &hcmv3.HttpConnectionManager{}
		if !f.GetTypedConfig().MessageIs(hcm) {
			continue
		}
		if err := f.GetTypedConfig().UnmarshalTo(hcm); err != nil {
			w.t.Fatal(err)
		}
		if rds := hcm.GetRds(); rds != nil {
			hcm.RouteSpecifier = &hcmv3.HttpConnectionManager_RouteConfig{
				RouteConfig: get[*routev3.RouteConfiguration](w, xds.Key{Type: translate.RoutesType, Name: rds.RouteConfigName, Variant: variant}),
			}
		}
		hcm.GetRouteConfig().ValidateClusters = wrapperspb.Bool(false) // as with RDS
		f.ConfigType = &listenerv3.Filter_TypedConfig{TypedConfig: pack(w.t, hcm)}
	}
	w.to.Listeners = append(w.to.Listeners, &listenerv3.Listener{
		Name: filepath.Base(socket), Address: pipe(socket), FilterChains: []*listenerv3.FilterChain{chain},
	})
}

// security keeps the demands of an inbound port's TLS, with a certificate and roots that
// stand in the configuration; without any, TLS is left out.
func (w *wiring) security(socket *corev3.TransportSocket) *corev3.TransportSocket {
	if w.own == nil || socket == nil {
		return nil
	}
	demands := &tlsv3.DownstreamTlsContext{}
	if err := socket.GetTypedConfig().UnmarshalTo(demands); err != nil {
		w.t.Fatal(err)
	}
	inline := func(b []byte) *corev3.DataSource {
		return &corev3.DataSource{Specifier: &corev3.DataSource_InlineBytes{InlineBytes: b}}
	}
	common := demands.CommonTlsContext
	common.TlsCertificateSdsSecretConfigs = nil
	common.TlsCertificates = []*tlsv3.TlsCertificate{{CertificateChain: inline(w.own.chain), PrivateKey: inline(w.own.key)}}
	validation := common.GetCombinedValidationContext().DefaultValidationContext
	validation.TrustedCa = inline(w.own.roots)
	common.ValidationContextType = &tlsv3.CommonTlsContext_ValidationContext{ValidationContext: validation}
	socket.ConfigType = &corev3.TransportSocket_TypedConfig{TypedConfig: pack(w.t, demands)}
	return socket
}

// runtime is that of a sidecar's Envoy, with what comes over ADS in life.
func runtime(t *testing.T) *bootstrapv3.LayeredRuntime {
	t.Helper()
	c := bootstrap.DefaultConfig()
	c.ID, c.Cluster, c.AdminSocket, c.AgentSocket = "any", "any", "/admin", "/agent"
	b, err := bootstrap.Bootstrap(c)
	if err != nil {
		t.Fatal(err)
	}
	overADS := translate.Runtime(translate.RuntimeIn{AccessLog: true})
	return &bootstrapv3.LayeredRuntime{Layers: []*bootstrapv3.RuntimeLayer{b.LayeredRuntime.Layers[0], {
		Name: overADS.Name, LayerSpecifier: &bootstrapv3.RuntimeLayer_StaticLayer{StaticLayer: overADS.Layer},
	}}}
}

// run starts the Envoy, waits until it serves, and ends it with the test.
func (w *wiring) run() {
	w.t.Helper()
	admin := filepath.Join(w.dir, "admin")
	config, err := protojson.Marshal(&bootstrapv3.Bootstrap{
		Node: &corev3.Node{Id: "routes", Cluster: "test"}, StaticResources: w.to, LayeredRuntime: runtime(w.t),
		Admin: &bootstrapv3.Admin{Address: pipe(admin)},
	})
	if err != nil {
		w.t.Fatal(err)
	}
	file := filepath.Join(w.dir, "bootstrap.json")
	if err := os.WriteFile(file, config, 0o600); err != nil {
		w.t.Fatal(err)
	}
	var log bytes.Buffer // read when the process has ended
	cmd := exec.Command(partstest.Envoy(w.t), "--disable-hot-restart", "--concurrency", "2", "--log-level", "warning", "-c", file)
	cmd.Stdout, cmd.Stderr = &log, &log
	if err := cmd.Start(); err != nil {
		w.t.Fatalf("start envoy: %v", err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		cmd.Wait()
	}()
	w.t.Cleanup(func() {
		cmd.Process.Kill()
		<-ended
		if w.t.Failed() {
			w.t.Logf("envoy said:\n%s", log.String())
		}
	})
	client := envoy.NewAdmin(admin)
	xdstest.Eventually(w.t, "Envoy serves", func() bool {
		select {
		case <-ended:
			w.t.Fatal("Envoy ended")
		default:
		}
		return client.Ready(w.t.Context()) == nil
	})
}
