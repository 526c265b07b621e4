package admin

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/heddle-mesh/heddle/controlplane"
	"github.com/heddle-mesh/heddle/controlplane/mesh"
	"github.com/heddle-mesh/heddle/controlplane/translate"
	"github.com/heddle-mesh/heddle/controlplane/xds"
	"github.com/heddle-mesh/heddle/discovery/api/apipb"
	"github.com/heddle-mesh/heddle/identity/ca"
)

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
	innocent := route("innocent", "db2", "api") // a part of the same resource
	if reply, _ := w.wait(w.submit(innocent)); reply.GetLive() != 2 {
		t.Fatalf("innocent route: %v", reply)
	}
	bad := route("bad", "db2", "api")
	bad.Rules[0].Matches[0].Path.Value = "/evil"
	revision := w.submit(bad)
	reply, _ := w.wait(revision)
	if reply.GetTotal() != 2 || reply.GetLive() != 1 || len(reply.GetRefused()) != 1 || reply.GetRefused()[0].GetProxy() != "default/db-1" {
		t.Fatalf("bad route: %v", reply)
	}
	nack := reply.GetRefused()[0].GetNack()
	if nack.GetName() != "db2.default:80" || nack.GetError() != "I do not like /evil" || len(nack.GetOrigins()) != 1 || nack.GetOrigins()[0].GetRef().GetName() != "bad" {
		t.Errorf("refused: %v", nack)
	}
	c := w.condition(bad.Ref, Programmed)
	if c.Status != False || c.Reason != "Invalid" || c.Message != "live on 1 of 2 proxies; refused by default/db-1 because I do not like /evil (in RouteConfiguration db2.default:80)" {
		t.Errorf("bad route: %+v", c)
	}
	for _, ref := range []mesh.Ref{innocent.Ref, {Kind: mesh.KindHTTPRoute, Name: name("good")}, {Kind: mesh.KindService, Name: name("db2")}, {Kind: mesh.KindService, Name: name("api")}} {
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
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if err := w.admin.Settled(gone, revision); !errors.Is(err, context.Canceled) {
		t.Errorf("settled before the slow one has it: %v", err)
	}
	close(release)
	reply, err := stream.Recv()
	must(t, err)
	if !reply.GetDone() || reply.GetLive() != 2 {
		t.Errorf("at the end: %v", reply)
	}
	must(t, w.admin.Settled(t.Context(), revision))
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
		"Runtime mesh <- MeshConfig/mesh@0",
		"Host default/api <- Service/api@1",
		"Listener api.default:80 <- Service/api@1",
		"Listener inbound <- Workload/api-1@1 Service/api@1",
		"Listener outbound <- MeshConfig/mesh@0",
		"RouteConfiguration api.default:80 <- Service/api@1 HTTPRoute/r@1",
		"RouteConfiguration inbound|api.default:80 <- Workload/api-1@1 Service/api@1",
		"Cluster api.default:80 <- Service/api@1",
		"Cluster app|8080 <- Workload/api-1@1 Service/api@1",
		"Cluster dst|100.96.0.1:80 <- Service/api@1",
		"Cluster passthrough <- MeshConfig/mesh@0",
		"ClusterLoadAssignment api.default:80 <- Service/api@1",
		"ClusterLoadAssignment self <- MeshConfig/mesh@0",
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
	single := service("single", 5, mesh.HTTP)
	single.Headless, single.VirtualIPs = true, nil
	foreign := route("foreign", "api", "api")
	foreign.Name.Namespace = "elsewhere"
	called := service("called", 6, mesh.HTTP)
	rival := route("rival", "called", "called")
	rival.Kind = mesh.KindGRPCRoute
	w.submit(single, foreign, called, rival, route("beside", "called", "called"), route("tosingle", "single", "api"),
		service("api", 1, mesh.HTTP), tcp, empty, other, workload(t, "api-1", "api", 1), unready, policy, port81,
		route("lost", "none", "api"), route("totcp", "db", "api"), route("dangling", "api", "api", "v2", "db"))
	for _, tc := range []struct {
		kind                             mesh.Kind
		name, condition, reason, message string
	}{
		{mesh.KindHTTPRoute, "lost", Accepted, "NoMatchingParent", "service default/none does not exist"},
		{mesh.KindHTTPRoute, "lost", Programmed, "Pending", "nothing is made"},
		{mesh.KindHTTPRoute, "port81", Accepted, "NoMatchingParent", "no port 81; it has 80"},
		{mesh.KindHTTPRoute, "totcp", Accepted, "UnsupportedProtocol", "appProtocol: http"},
		{mesh.KindHTTPRoute, "tosingle", Accepted, "UnsupportedValue", "service default/single is headless"},
		{mesh.KindHTTPRoute, "beside", Accepted, "Conflicted", "GRPCRoute default/rival is attached to service default/called, too"},
		{mesh.KindGRPCRoute, "rival", Accepted, "Accepted", ""},
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
	if c := w.admin.status(foreign.Ref).Conditions[0]; c.Reason != "NotAllowedByListeners" || !strings.Contains(c.Message, "move the route to namespace default") {
		t.Errorf("a route of another namespace: %+v", c)
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
	if got := w.admin.Doubts(route("new", "none", "api")); len(got) != 1 || !strings.Contains(got[0], "none") {
		t.Errorf("doubts about a route to come: %v", got)
	}
	if got := w.admin.Doubts(route("new", "api", "api")); len(got) != 0 {
		t.Errorf("doubts about a good one: %v", got)
	}
	if got := w.admin.Doubts(&mesh.AuthorizationPolicy{Targets: []mesh.Name{name("none")}}); len(got) != 1 || !strings.Contains(got[0], "does not exist") {
		t.Errorf("doubts about a policy to come: %v", got)
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
		route("lost", "none", "api"), policy, &mesh.Gateway{Meta: meta(mesh.KindGateway, "entrance")}, ingress("lost", "none"))
	w.connect("default/api-1", func(r *discoveryv3.DeltaDiscoveryResponse) error { return errors.New("no") })
	w.until("a refusal", func() bool { c := w.admin.sidecars(); return len(c) == 1 && len(w.admin.refusals(c[0])) > 0 })
	got := levels()
	for check, want := range map[string]apipb.Finding_Level{
		"workloads": apipb.Finding_WARNING, "services": apipb.Finding_WARNING, "protocols": apipb.Finding_ERROR,
		"routes": apipb.Finding_ERROR, "policies": apipb.Finding_ERROR, "refusals": apipb.Finding_ERROR,
		"ingresses": apipb.Finding_ERROR,
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

// TestKeysAreNotShown: the configuration of a gateway's proxy is for people without its keys.
func TestKeysAreNotShown(t *testing.T) {
	w := newWorld(t)
	proxy := workload(t, "entrance-1", "entrance", 1)
	proxy.Capture = mesh.AtGateway
	secret := &mesh.Certificate{Meta: meta(mesh.KindCertificate, "tls"), Chain: "the chain", Key: "the key"}
	w.submit(service("api", 1, mesh.HTTP), proxy, &mesh.Gateway{Meta: meta(mesh.KindGateway, "entrance")}, ingress("shop", "api"), secret)
	reply, err := w.mesh.Config(t.Context(), &apipb.ConfigRequest{Workload: &apipb.Ref{Namespace: "default", Name: "entrance-1"}, Types: []string{translate.SecretType}})
	must(t, err)
	got := reply.GetResources()
	if len(got) != 1 || !strings.Contains(string(got[0].GetJson()), "the chain") || strings.Contains(string(got[0].GetJson()), "the key") {
		t.Errorf("%v", got)
	}
}
