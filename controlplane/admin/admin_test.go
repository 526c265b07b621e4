package admin

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"

	"github.com/heddle-mesh/heddle/controlplane"
	"github.com/heddle-mesh/heddle/controlplane/mesh"
	"github.com/heddle-mesh/heddle/controlplane/translate"
	"github.com/heddle-mesh/heddle/controlplane/xds"
	"github.com/heddle-mesh/heddle/controlplane/xds/xdstest"
	"github.com/heddle-mesh/heddle/discovery/api/apipb"
	"github.com/heddle-mesh/heddle/identity/ca"
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

// TestRefusalReachesItsObject is promise 2: a NACK shows in the status of the object
// that caused it, in Wait, Proxies and Check, and all else stays live.
func TestRefusalReachesItsObject(t *testing.T) {
	w := newWorld(t)
	w.submit(service("api", 1, mesh.HTTP), service("db", 2, mesh.TCP), workload(t, "api-1", "api", 1), workload(t, "db-1", "db", 2))
	good := w.submit(route("good", "api", "api"))
	picky := func(r *discoveryv3.DeltaDiscoveryResponse) error {
		for _, resource := range r.GetResources() {
			if strings.Contains(string(resource.GetResource().GetValue()), "/evil") {
				return errors.New("I do not like /evil")
			}
		}
		return nil
	}
	w.connect("default/api-1", nil)
	w.connect("default/db-1", picky)
	w.until("two proxies", func() bool { return len(w.admin.sidecars()) == 2 })
	if reply, _ := w.wait(good); reply.GetTotal() != 2 || reply.GetLive() != 2 || len(reply.GetRefused()) != 0 {
		t.Fatalf("good route: %v", reply)
	}
	w.submit(service("db2", 3, mesh.HTTP))
	w.until("both to have the routes of db2", func() bool {
		return w.xds.Interested(xds.Key{Type: translate.RoutesType, Name: "db2.default:80"}).Live == 2
	})
	bad := route("bad", "db2", "api")
	bad.Rules[0].Matches[0].Path.Value = "/evil"
	revision := w.submit(bad)
	reply, _ := w.wait(revision)
	if reply.GetTotal() != 2 || reply.GetLive() != 1 || len(reply.GetRefused()) != 1 || reply.GetRefused()[0].GetProxy() != "default/db-1" {
		t.Fatalf("bad route: %v", reply)
	}
	nack := reply.GetRefused()[0].GetNack()
	if nack.GetName() != "db2.default:80" || nack.GetError() != "I do not like /evil" || len(nack.GetOrigins()) != 2 || nack.GetOrigins()[1].GetRef().GetName() != "bad" {
		t.Errorf("refused: %v", nack)
	}
	c := w.condition(bad.Ref, Programmed)
	if c.Status != False || c.Reason != "Invalid" || c.Message != "live on 1 of 2 proxies; refused by default/db-1 because I do not like /evil (in RouteConfiguration db2.default:80)" {
		t.Errorf("bad route: %+v", c)
	}
	for _, ref := range []mesh.Ref{{Kind: mesh.KindHTTPRoute, Name: name("good")}, {Kind: mesh.KindService, Name: name("db2")}, {Kind: mesh.KindService, Name: name("api")}} {
		if c := w.condition(ref, Programmed); c.Status != True || c.Message != "live on 2 of 2 proxies" {
			t.Errorf("%s: %+v", ref, c)
		}
	}
	proxies, err := w.mesh.Proxies(t.Context(), &apipb.ProxiesRequest{})
	must(t, err)
	if p := proxies.GetProxies(); !p[0].GetSynced() || p[1].GetSynced() || len(p[1].GetNacks()) != 1 || p[1].GetAckedRevision() < revision {
		t.Errorf("proxies: %v", p)
	}
	// Another change is not blamed for it, and the repair takes it back.
	if reply, _ := w.wait(w.submit(route("good", "api", "db2"))); reply.GetLive() != 2 {
		t.Errorf("unrelated change: %v", reply)
	}
	repaired := route("bad", "db2", "api")
	repaired.Rules[0].Matches[0].Path.Value, repaired.Generation = "/fine", 2
	if reply, _ := w.wait(w.submit(repaired)); reply.GetLive() != 2 {
		t.Errorf("repaired: %v", reply)
	}
	if c := w.condition(bad.Ref, Programmed); c.Status != True || c.ObservedGeneration != 2 {
		t.Errorf("repaired: %+v", c)
	}
}

// TestWaitForTheSlowOne: a proxy that has not answered keeps Wait waiting, and so does
// the agent beside an Envoy.
func TestWaitForTheSlowOne(t *testing.T) {
	w := newWorld(t)
	w.submit(service("api", 1, mesh.HTTP), workload(t, "api-1", "api", 1), workload(t, "api-2", "api", 2))
	release := make(chan struct{})
	var hold atomic.Bool
	w.connect("default/api-1", nil)
	w.connect("default/api-2", nil)
	w.connect("default/api-2"+controlplane.AgentSuffix, func(*discoveryv3.DeltaDiscoveryResponse) error {
		if hold.Load() {
			<-release
		}
		return nil
	})
	w.until("agent and proxies", func() bool {
		c := w.admin.sidecars()
		return len(c) == 2 && len(c[1].streams) == 2 && c[1].settled() >= w.pipeline.Cache().Revision()
	})
	hold.Store(true)
	revision := w.submit(service("web", 2, mesh.HTTP))
	stream, err := w.mesh.Wait(t.Context(), &apipb.WaitRequest{Revision: revision})
	must(t, err)
	for {
		reply, err := stream.Recv()
		must(t, err)
		if reply.GetDone() || reply.GetTotal() != 2 {
			t.Fatalf("done too early: %v", reply)
		}
		if reply.GetLive() == 1 {
			break
		}
	}
	if c := w.condition(mesh.Ref{Kind: mesh.KindService, Name: name("web")}, Programmed); c.Reason != "Pending" || c.Message != "live on 1 of 2 proxies; waiting for default/api-2" {
		t.Errorf("web: %+v", c)
	}
	close(release)
	reply, err := stream.Recv()
	must(t, err)
	if !reply.GetDone() || reply.GetLive() != 2 {
		t.Errorf("at the end: %v", reply)
	}
	stream, err = w.mesh.Wait(t.Context(), &apipb.WaitRequest{Revision: revision + 100})
	must(t, err)
	if _, err := stream.Recv(); status.Code(err) != codes.FailedPrecondition {
		t.Errorf("revision of the future: %v", err)
	}
}

func TestWaitWithoutProxies(t *testing.T) {
	w := newWorld(t)
	if reply, n := w.wait(w.submit(service("api", 1, mesh.HTTP))); !reply.GetDone() || reply.GetTotal() != 0 || n != 1 {
		t.Errorf("reply %v", reply)
	}
	if c := w.condition(mesh.Ref{Kind: mesh.KindService, Name: name("api")}, Programmed); c.Status != Unknown {
		t.Errorf("condition %+v", c)
	}
}

func TestConfig(t *testing.T) {
	w := newWorld(t)
	near := workload(t, "api-1", "api", 1)
	near.Zone = "a"
	w.submit(service("api", 1, mesh.HTTP), near, workload(t, "api-2", "api", 2), route("r", "api", "api"))
	reply, err := w.mesh.Config(t.Context(), &apipb.ConfigRequest{Workload: &apipb.Ref{Namespace: "default", Name: "api-1"}})
	must(t, err)
	var got []string
	for _, r := range reply.GetResources() {
		line := r.GetType()[strings.LastIndex(r.GetType(), ".")+1:] + " " + r.GetName() + " <-"
		for _, o := range r.GetOrigins() {
			line += fmt.Sprintf(" %s/%s@%d", o.GetRef().GetKind(), o.GetRef().GetName(), o.GetGeneration())
		}
		got = append(got, line)
		if len(r.GetJson()) < 2 || r.GetVersion() == "" {
			t.Errorf("%s: version %q, JSON %s", r.GetName(), r.GetVersion(), r.GetJson())
		}
	}
	want := []string{
		"Host default/api <- Service/api@1",
		"Listener api.default:80 <- Service/api@1",
		"Listener inbound <- Workload/api-1@1 Service/api@1",
		"Listener outbound <- MeshConfig/mesh@0",
		"RouteConfiguration api.default:80 <- Service/api@1 HTTPRoute/r@1",
		"Cluster api.default:80 <- Service/api@1",
		"Cluster app|8080 <- Workload/api-1@1 Service/api@1",
		"Cluster dst|100.96.0.1:80 <- Service/api@1",
		"Cluster passthrough <- MeshConfig/mesh@0",
		"ClusterLoadAssignment api.default:80 <- Service/api@1",
	}
	if !slices.Equal(got, want) {
		t.Errorf("config:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	one, err := w.mesh.Config(t.Context(), &apipb.ConfigRequest{Types: []string{translate.HostType}})
	must(t, err)
	if len(one.GetResources()) != 1 || !strings.Contains(string(one.GetResources()[0].GetJson()), `"api"`) {
		t.Errorf("hosts: %v", one)
	}
	_, err = w.mesh.Config(t.Context(), &apipb.ConfigRequest{Workload: &apipb.Ref{Name: "none"}})
	if status.Code(err) != codes.NotFound {
		t.Errorf("unknown workload: %v", err)
	}
}

func TestStatusOfObjects(t *testing.T) {
	w := newWorld(t)
	tcp := service("db", 2, mesh.TCP)
	empty := service("empty", 3, mesh.HTTP)
	other := service("other", 4, mesh.TCP)
	other.Selector = map[string]string{"app": "api"}
	unready := workload(t, "api-2", "api", 2)
	unready.Ready = false
	policy := &mesh.AuthorizationPolicy{Meta: meta(mesh.KindAuthorizationPolicy, "p"), Targets: []mesh.Name{name("api"), name("none")}}
	port81 := route("port81", "api", "api")
	port81.Parents[0].Port = 81
	w.submit(service("api", 1, mesh.HTTP), tcp, empty, other, workload(t, "api-1", "api", 1), unready, policy, port81,
		route("lost", "none", "api"), route("totcp", "db", "api"), route("dangling", "api", "api", "v2", "db"))
	for _, tc := range []struct {
		kind                             mesh.Kind
		name, condition, reason, message string
	}{
		{mesh.KindHTTPRoute, "lost", Accepted, "NoMatchingParent", "service default/none does not exist"},
		{mesh.KindHTTPRoute, "lost", Programmed, "Pending", "nothing is made"},
		{mesh.KindHTTPRoute, "port81", Accepted, "NoMatchingParent", "no port 81; it has 80"},
		{mesh.KindHTTPRoute, "totcp", Accepted, "UnsupportedProtocol", "appProtocol: http"},
		{mesh.KindHTTPRoute, "dangling", Accepted, "Accepted", ""},
		{mesh.KindHTTPRoute, "dangling", ResolvedRefs, "BackendNotFound", "backend service default/v2 does not exist"},
		{mesh.KindHTTPRoute, "dangling", ResolvedRefs, "BackendNotFound", "port 80 of backend service default/db is tcp"},
		{mesh.KindService, "api", Ready, "Ready", "1 of 2 endpoints are ready"},
		{mesh.KindService, "empty", Ready, "NoEndpoints", "app=empty"},
		{mesh.KindService, "other", Accepted, "ProtocolConflict", "service default/api says is http"},
		{mesh.KindWorkload, "api-2", Ready, "NotReady", "draining"},
		{mesh.KindAuthorizationPolicy, "p", ResolvedRefs, "TargetNotFound", "default/none"},
	} {
		c := w.condition(mesh.Ref{Kind: tc.kind, Name: name(tc.name)}, tc.condition)
		if c.Reason != tc.reason || !strings.Contains(c.Message, tc.message) {
			t.Errorf("%s %s: %s: %+v, want %s: %s", tc.kind, tc.name, tc.condition, c, tc.reason, tc.message)
		}
	}
	if s := w.admin.status(policy.Ref); !slices.Equal(s.EnforcedBy, []string{"api-1", "api-2"}) {
		t.Errorf("policy is enforced by %v", s.EnforcedBy)
	}
	if s := w.admin.status(mesh.Ref{Kind: mesh.KindService, Name: name("api")}); *s.Endpoints != (Endpoints{1, 2}) || s.VirtualIPs[0] != "100.96.0.1" {
		t.Errorf("service: %+v", s)
	}
	if s := w.admin.Status(mesh.Ref{Kind: mesh.KindService, Name: name("gone")}); s != nil {
		t.Errorf("an object that is not there has status %v", s)
	}
	if got := w.admin.Warnings([]mesh.Change{mesh.Set(route("lost", "none", "api"))}); len(got) != 1 {
		t.Errorf("warnings %v", got)
	}
}

func TestCheck(t *testing.T) {
	c := ca.DefaultConfig()
	c.TrustDomain = "mesh.local"
	authority, err := ca.Open(filepath.Join(t.TempDir(), "ca"), c)
	must(t, err)
	now := time.Now()
	w := newWorld(t, func(c *Config) {
		c.CA, c.Now = authority, func() time.Time { return now }
		c.Virtual = []netip.Prefix{netip.MustParsePrefix("100.96.0.0/30")}
	})
	levels := func() map[string]apipb.Finding_Level {
		reply, err := w.mesh.Check(t.Context(), &apipb.CheckRequest{})
		must(t, err)
		out := map[string]apipb.Finding_Level{}
		for _, f := range reply.GetFindings() {
			out[f.GetName()] = max(out[f.GetName()], f.GetLevel())
			if f.GetLevel() != apipb.Finding_OK && f.GetFix() == "" || f.GetMessage() == "" {
				t.Errorf("finding without a message or a fix: %v", f)
			}
		}
		return out
	}
	for check, level := range levels() {
		if level != apipb.Finding_OK {
			t.Errorf("empty mesh: %s is %v", check, level)
		}
	}
	other := service("other", 2, mesh.TCP)
	other.Selector = map[string]string{"app": "api"}
	policy := &mesh.AuthorizationPolicy{Meta: meta(mesh.KindAuthorizationPolicy, "p"), Targets: []mesh.Name{name("none")}}
	w.submit(service("api", 1, mesh.HTTP), other, service("empty", 3, mesh.HTTP), workload(t, "api-1", "api", 1), workload(t, "lone", "lone", 2),
		route("lost", "none", "api"), policy)
	w.connect("default/api-1", func(r *discoveryv3.DeltaDiscoveryResponse) error { return errors.New("no") })
	w.until("a refusal", func() bool { c := w.admin.sidecars(); return len(c) == 1 && len(w.admin.refusals(c[0])) > 0 })
	got := levels()
	for check, want := range map[string]apipb.Finding_Level{
		"workloads": apipb.Finding_WARNING, "services": apipb.Finding_WARNING, "protocols": apipb.Finding_ERROR,
		"routes": apipb.Finding_ERROR, "policies": apipb.Finding_ERROR, "refusals": apipb.Finding_ERROR,
		"addresses": apipb.Finding_OK, "certificates": apipb.Finding_OK, "clock": apipb.Finding_OK,
	} {
		if got[check] != want {
			t.Errorf("%s is %v, want %v", check, got[check], want)
		}
	}
	w.submit(service("fourth", 0, mesh.HTTP))
	now = now.Add(-24 * time.Hour)
	if got := levels(); got["clock"] != apipb.Finding_ERROR || got["addresses"] != apipb.Finding_ERROR {
		t.Errorf("clock %v, addresses %v", got["clock"], got["addresses"])
	}
	now = authority.Expiry().Root.Add(time.Hour)
	if got := levels(); got["certificates"] != apipb.Finding_ERROR {
		t.Errorf("certificates %v", got["certificates"])
	}
}

// TestManyObjectsAskOnce: the streams are not asked for every object of a listing.
func TestManyObjectsAskOnce(t *testing.T) {
	w := newWorld(t)
	w.submit(service("api", 1, mesh.HTTP), workload(t, "api-1", "api", 1))
	w.connect("default/api-1", nil)
	w.wait(0)
	w.until("the proxy", func() bool {
		c := w.admin.sidecars()
		return len(c) == 1 && c[0].settled() == w.pipeline.Cache().Revision()
	})
	a, b := w.admin.streams(), w.admin.streams()
	if &a[0] != &b[0] {
		t.Error("the streams were asked twice though nothing changed")
	}
}
