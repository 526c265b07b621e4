package admin

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/test/bufconn"

	"github.com/heddle-mesh/heddle/controlplane"
	"github.com/heddle-mesh/heddle/controlplane/mesh"
	"github.com/heddle-mesh/heddle/controlplane/translate"
	"github.com/heddle-mesh/heddle/controlplane/xds"
	"github.com/heddle-mesh/heddle/controlplane/xds/xdstest"
	"github.com/heddle-mesh/heddle/discovery/api/apipb"
	"github.com/heddle-mesh/heddle/identity/spiffeid"
)

// world is a control plane with simulated proxies: real pipeline, cache and streams.
type world struct {
	t        *testing.T
	pipeline *controlplane.Pipeline
	xds      *xds.Server
	admin    *Server
	conn     *grpc.ClientConn
	mesh     apipb.MeshClient
}

func newWorld(t *testing.T, change ...func(*Config)) *world {
	t.Helper()
	w := &world{t: t}
	cache := xds.NewCache()
	var err error
	w.pipeline, err = controlplane.NewPipeline(mesh.DefaultMeshConfig(), cache, netip.MustParsePrefix("100.96.0.0/16"))
	must(t, err)
	w.xds = xds.NewServer(xds.Config{Cache: cache, Patience: 50 * time.Millisecond, Connect: func(_ context.Context, node *corev3.Node) (xds.Proxy, error) {
		name := strings.TrimPrefix(strings.TrimSuffix(node.GetId(), controlplane.AgentSuffix), "default/")
		workload, ok := w.pipeline.Snapshot().Workloads.Lookup(mesh.Name{Namespace: "default", Name: name})
		if !ok {
			return xds.Proxy{}, errors.New("unknown workload")
		}
		return xds.Proxy{ID: node.GetId(), Variants: controlplane.Variants(workload)}, nil
	}})
	c := Config{Pipeline: w.pipeline, XDS: w.xds}
	for _, f := range change {
		f(&c)
	}
	w.admin, err = New(c)
	must(t, err)
	w.serve()
	return w
}

// serve runs a gRPC server in memory until the test ends.
func (w *world) serve() {
	l := bufconn.Listen(1 << 20)
	server := grpc.NewServer(grpc.ForceServerCodecV2(xds.Codec()))
	discoveryv3.RegisterAggregatedDiscoveryServiceServer(server, w.xds)
	apipb.RegisterMeshServer(server, w.admin)
	served := make(chan error, 1)
	go func() { served <- server.Serve(l) }()
	w.t.Cleanup(func() {
		server.Stop()
		<-served
	})
	var err error
	w.conn, err = grpc.NewClient("passthrough:memory", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return l.DialContext(ctx) }))
	must(w.t, err)
	w.t.Cleanup(func() { w.conn.Close() })
	w.mesh = apipb.NewMeshClient(w.conn)
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func (w *world) submit(objects ...mesh.Object) uint64 {
	w.t.Helper()
	var changes []mesh.Change
	for _, o := range objects {
		changes = append(changes, mesh.Set(o))
	}
	revision, err := w.pipeline.Submit(changes)
	must(w.t, err)
	return revision
}

// connect starts a simulated proxy that subscribes as Envoy does: clusters and listeners
// by wildcard, the rest by the names it knows of. It refuses what judge says.
func (w *world) connect(id string, judge func(*discoveryv3.DeltaDiscoveryResponse) error) {
	w.t.Helper()
	ctx, cancel := context.WithCancel(w.t.Context())
	client, err := xdstest.Open(ctx, w.conn, id)
	must(w.t, err)
	client.Judge = judge
	seen := map[string]bool{}
	client.Observe = func(r *discoveryv3.DeltaDiscoveryResponse) {
		follow := map[string]string{translate.ClusterType: translate.EndpointsType, translate.ListenerType: translate.RoutesType}[r.GetTypeUrl()]
		for _, resource := range r.GetResources() {
			if name := resource.GetName(); follow != "" && strings.Contains(name, ".") && strings.Contains(name, ":") && !seen[follow+name] && !strings.HasPrefix(name, "dst|") {
				seen[follow+name] = true
				client.Subscribe(follow, name)
			}
		}
	}
	if strings.HasSuffix(id, controlplane.AgentSuffix) {
		must(w.t, client.Subscribe(translate.HostType))
	} else {
		must(w.t, client.Subscribe(translate.ClusterType))
		must(w.t, client.Subscribe(translate.ListenerType))
	}
	done := make(chan struct{})
	go func() { defer close(done); client.Run() }()
	w.t.Cleanup(func() { cancel(); <-done })
}

// wait follows Wait to its end.
func (w *world) wait(revision uint64) (last *apipb.WaitReply, replies int) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), 20*time.Second)
	defer cancel()
	stream, err := w.mesh.Wait(ctx, &apipb.WaitRequest{Revision: revision})
	must(w.t, err)
	for {
		reply, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return last, replies
		}
		must(w.t, err)
		last, replies = reply, replies+1
	}
}

// until waits for a condition on what proxies have answered.
func (w *world) until(what string, ok func() bool) {
	w.t.Helper()
	timeout := time.After(20 * time.Second)
	for {
		changed := w.xds.Changed()
		if ok() {
			return
		}
		select {
		case <-changed:
		case <-timeout:
			w.t.Fatalf("waited in vain for: %s", what)
		}
	}
}

func name(n string) mesh.Name { return mesh.Name{Namespace: "default", Name: n} }

func meta(kind mesh.Kind, n string) mesh.Meta {
	return mesh.Meta{Ref: mesh.Ref{Kind: kind, Name: name(n)}, Generation: 1}
}

func service(n string, last byte, protocol mesh.Protocol) *mesh.Service {
	return &mesh.Service{Meta: meta(mesh.KindService, n), Selector: map[string]string{"app": n},
		VirtualIPs: []netip.Addr{netip.AddrFrom4([4]byte{100, 96, 0, last})},
		Ports:      []mesh.ServicePort{{Port: 80, Target: 8080, Protocol: protocol}}}
}

func workload(t *testing.T, n, app string, last byte) *mesh.Workload {
	id, err := spiffeid.New("mesh.local", "default", app)
	must(t, err)
	return &mesh.Workload{Meta: meta(mesh.KindWorkload, n), Identity: id, Labels: map[string]string{"app": app},
		Addresses: []netip.Addr{netip.AddrFrom4([4]byte{10, 68, 0, last})}, Ports: []mesh.WorkloadPort{{App: 8080, Peer: 8080}},
		Capture: mesh.Transparent, Ready: true}
}

func route(n, parent string, backends ...string) *mesh.Route {
	rule := mesh.Rule{Matches: []mesh.Match{{Path: mesh.StringMatch{Kind: mesh.Prefix, Value: "/" + n}}}}
	for _, b := range backends {
		rule.Backends = append(rule.Backends, mesh.Backend{Service: name(b), Port: 80, Weight: 1})
	}
	return &mesh.Route{Meta: meta(mesh.KindHTTPRoute, n), Parents: []mesh.Parent{{Service: name(parent)}}, Rules: []mesh.Rule{rule}}
}

func (w *world) condition(ref mesh.Ref, kind string) Condition {
	w.t.Helper()
	s, ok := w.admin.Status(ref).(*Status)
	if !ok {
		w.t.Fatalf("%s has no status", ref)
	}
	i := slices.IndexFunc(s.Conditions, func(c Condition) bool { return c.Type == kind })
	if i < 0 {
		w.t.Fatalf("%s has no condition %s: %+v", ref, kind, s.Conditions)
	}
	return s.Conditions[i]
}

// ingress lets requests for a.example in, to a service.
func ingress(n, service string) *mesh.Ingress {
	return &mesh.Ingress{Meta: meta(mesh.KindIngress, n), Gateway: name("entrance"), Hosts: []mesh.IngressHost{{
		Name: "a.example", Field: "spec.rules[0].host", Secret: name("tls"),
		Paths: []mesh.IngressPath{{Path: mesh.StringMatch{Kind: mesh.Prefix, Value: "/"}, Service: name(service), Port: 80}},
	}}}
}
