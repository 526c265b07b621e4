package controlplane

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/heddle-mesh/heddle/controlplane/mesh"
	"github.com/heddle-mesh/heddle/controlplane/xds"
	"github.com/heddle-mesh/heddle/identity/spiffeid"
)

// FuzzIncremental holds the promise that the fast way and the slow way agree: after any
// sequence of changes the cache is what a rebuild from nothing makes it.
func FuzzIncremental(f *testing.F) {
	for seed := range uint64(20) {
		f.Add(seed, uint8(40))
	}
	f.Fuzz(func(t *testing.T, seed uint64, steps uint8) {
		random := changer{rand.New(rand.NewPCG(seed, 1))}
		cache := xds.NewCache()
		p, err := NewPipeline(mesh.DefaultMeshConfig(), cache, testPrefixes...)
		if err != nil {
			t.Fatal(err)
		}
		for step := range steps {
			changes := random.changes()
			if _, err := p.Submit(changes); err != nil {
				t.Fatalf("step %d: submit %v: %v", step, changes, err)
			}
			if diff := cmp.Diff(rebuild(t, p.Snapshot()), contents(cache)); diff != "" {
				t.Fatalf("step %d: after %v the incremental result is not the rebuilt one (-rebuilt +incremental):\n%s",
					step, describe(changes), diff)
			}
		}
	})
}

// TestUnchangedIsNotSent shows that a change re-makes what depends on it and no more.
func TestUnchangedIsNotSent(t *testing.T) {
	cache := xds.NewCache()
	p, err := NewPipeline(mesh.DefaultMeshConfig(), cache, testPrefixes...)
	if err != nil {
		t.Fatal(err)
	}
	random := changer{rand.New(rand.NewPCG(7, 7))}
	for range 50 {
		if _, err := p.Submit(random.changes()); err != nil {
			t.Fatal(err)
		}
	}
	route := random.route("r-new")
	route.Parents = []mesh.Parent{{Service: mesh.Name{Namespace: "default", Name: "s1"}}}
	svc := random.service("s1")
	svc.Ports = []mesh.ServicePort{{Name: "http", Port: 80, Target: 8080, Protocol: mesh.HTTP}}
	if _, err := p.Submit([]mesh.Change{mesh.Set(svc)}); err != nil {
		t.Fatal(err)
	}
	before := versions(cache)
	if _, err := p.Submit([]mesh.Change{mesh.Set(route)}); err != nil {
		t.Fatal(err)
	}
	for key, version := range versions(cache) {
		isRoutes := key == "RouteConfiguration s1.default:80"
		if changed := before[key] != version; changed != isRoutes {
			t.Errorf("%s: changed = %v after a change of a route of s1", key, changed)
		}
	}
}

var testPrefixes = []netip.Prefix{netip.MustParsePrefix("100.96.0.0/16"), netip.MustParsePrefix("fd68:6564:646c:2::/64")}

// contents lists a cache as key -> version and origins.
func contents(c *xds.Cache) map[string]string {
	out := map[string]string{}
	for r := range c.All() {
		out[r.Key.String()] = fmt.Sprint(r.Version, r.Origins, r.Needs, r.Groups)
	}
	return out
}

// versions is contents without the groups: who gets a resource may change while it does not.
func versions(c *xds.Cache) map[string]string {
	out := map[string]string{}
	for r := range c.All() {
		out[r.Key.String()] = fmt.Sprint(r.Version, r.Origins, r.Needs)
	}
	return out
}

func rebuild(t *testing.T, s *mesh.Snapshot) map[string]string {
	cache := xds.NewCache()
	p, err := NewPipeline(mesh.DefaultMeshConfig(), cache, testPrefixes...)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.Submit(all(s)); err != nil {
		t.Fatal(err)
	}
	return contents(cache)
}

func all(s *mesh.Snapshot) []mesh.Change {
	return slices.Concat([]mesh.Change{mesh.Set(s.Config)}, sets(s.Services), sets(s.Slices), sets(s.Workloads),
		sets(s.HTTPRoutes), sets(s.GRPCRoutes), sets(s.Policies), sets(s.Gateways), sets(s.Ingresses), sets(s.Certificates))
}

func sets[O mesh.Object](table mesh.Table[O]) (out []mesh.Change) {
	for _, o := range table.All() {
		out = append(out, mesh.Set(o))
	}
	return out
}

func describe(changes []mesh.Change) []string {
	var out []string
	for _, c := range changes {
		verb := "set "
		if c.Object == nil {
			verb = "remove "
		}
		out = append(out, verb+c.Ref.String())
	}
	return out
}

// changer makes random but valid changes of a small mesh, so that they collide often.
type changer struct{ *rand.Rand }

func (r changer) changes() []mesh.Change {
	var out []mesh.Change
	for range 1 + r.IntN(3) {
		out = append(out, r.change())
	}
	return out
}

func (r changer) change() mesh.Change {
	var o mesh.Object
	switch r.IntN(17) {
	case 0, 1:
		o = r.service(fmt.Sprintf("s%d", r.IntN(4)))
	case 2, 3, 4:
		o = r.workload(fmt.Sprintf("w%d", r.IntN(6)))
	case 5, 6:
		o = r.route(fmt.Sprintf("r%d", r.IntN(3)))
	case 7, 8:
		o = r.policy(fmt.Sprintf("p%d", r.IntN(3)))
	case 9, 10, 11:
		o = r.slice(fmt.Sprintf("e%d", r.IntN(5)))
	case 12:
		o = &mesh.Gateway{Meta: r.meta(mesh.KindGateway, "g")}
	case 13, 14:
		o = r.ingress(fmt.Sprintf("i%d", r.IntN(3)))
	case 15:
		o = r.certificate(fmt.Sprintf("c%d", r.IntN(2)))
	default:
		config := mesh.DefaultMeshConfig()
		config.Generation = r.Int64N(9)
		config.PreferZone = r.IntN(2) == 0
		config.AccessLog = r.IntN(2) == 0
		o = config
	}
	if r.IntN(4) == 0 {
		return mesh.Remove(o.Header().Ref)
	}
	return mesh.Set(o)
}

func (r changer) meta(kind mesh.Kind, name string) mesh.Meta {
	return mesh.Meta{
		Ref:        mesh.Ref{Kind: kind, Name: mesh.Name{Namespace: "default", Name: name}},
		Generation: r.Int64N(4), Created: r.Int64N(3),
	}
}

func (r changer) labels() map[string]string {
	out := map[string]string{"app": fmt.Sprintf("a%d", r.IntN(3))}
	if r.IntN(2) == 0 {
		out["version"] = fmt.Sprintf("v%d", 1+r.IntN(2))
	}
	return out
}

func (r changer) service(name string) *mesh.Service {
	s := &mesh.Service{Meta: r.meta(mesh.KindService, name), Selector: r.labels(), Headless: r.IntN(4) == 0}
	if !s.Headless {
		last := name[len(name)-1] - '0'
		s.VirtualIPs = []netip.Addr{netip.AddrFrom4([4]byte{100, 96, 0, last}), netip.MustParseAddr(fmt.Sprintf("fd68:6564:646c:2::%d", last))}
	}
	s.Sliced = r.IntN(2) == 0
	s.NodeLocal = r.IntN(6) == 0
	s.Prefer = []mesh.Preference{mesh.PreferDefault, mesh.PreferZone, mesh.PreferNode}[r.IntN(3)]
	for i, protocol := range []mesh.Protocol{mesh.HTTP, mesh.TCP, mesh.GRPC} {
		if r.IntN(2) == 0 {
			s.Ports = append(s.Ports, mesh.ServicePort{Name: fmt.Sprint("p", i), Port: uint16(80 + i), Target: uint16(8080 + r.IntN(2)), Protocol: protocol})
		}
	}
	return s
}

func (r changer) workload(name string) *mesh.Workload {
	w := &mesh.Workload{
		Meta: r.meta(mesh.KindWorkload, name), Labels: r.labels(), Zone: []string{"", "a", "b"}[r.IntN(3)],
		Capture: mesh.Transparent, Ready: r.IntN(3) > 0,
		Addresses: []netip.Addr{netip.AddrFrom4([4]byte{10, 68, 0, name[1]}), netip.MustParseAddr("fd68:6564:646c:1::" + name[1:])},
		Ports:     []mesh.WorkloadPort{{App: 8080, Peer: 8080}, {App: 8081, Peer: 8081}}[:1+r.IntN(2)],
	}
	w.Identity, _ = spiffeid.New("mesh.local", "default", fmt.Sprint("a", r.IntN(3)))
	if r.IntN(6) == 0 {
		w.Capture = mesh.AtGateway
	}
	if w.Pod = r.IntN(3) == 0; w.Pod && r.IntN(2) == 0 {
		w.Open = []uint16{8080}
	}
	if r.IntN(4) == 0 {
		w.Capture = mesh.Explicit
		w.Upstreams = []mesh.Upstream{{Service: r.name("s", 4), Port: uint16(80 + r.IntN(3)), Local: netip.MustParseAddrPort("127.0.0.1:9001")}}
	}
	return w
}

func (r changer) slice(name string) *mesh.EndpointSlice {
	s := &mesh.EndpointSlice{Meta: r.meta(mesh.KindEndpointSlice, name), Service: r.name("s", 4).Name}
	for i := range 3 {
		if r.IntN(3) > 0 {
			s.Ports = append(s.Ports, mesh.EndpointPort{Name: fmt.Sprint("p", i), Number: uint16(8080 + r.IntN(2))})
		}
	}
	for range r.IntN(4) {
		n := byte('0' + r.IntN(6))
		e := mesh.Endpoint{
			Addresses: []netip.Addr{netip.AddrFrom4([4]byte{10, 68, 0, n})}, Ready: r.IntN(3) > 0, Serving: true,
			Zone: []string{"", "a", "b"}[r.IntN(3)], Node: []string{"", "n1", "n2"}[r.IntN(3)],
		}
		if r.IntN(4) > 0 {
			e.Workload = "w" + string(n)
		}
		s.Endpoints = append(s.Endpoints, e)
	}
	return s
}

func (r changer) name(prefix string, n int) mesh.Name {
	return mesh.Name{Namespace: "default", Name: fmt.Sprint(prefix, r.IntN(n))}
}

func (r changer) route(name string) *mesh.Route {
	route := &mesh.Route{Meta: r.meta(mesh.KindHTTPRoute, name)}
	for range 1 + r.IntN(2) {
		route.Parents = append(route.Parents, mesh.Parent{Service: r.name("s", 4), Port: []uint16{0, 80}[r.IntN(2)]})
	}
	route.Parents = slices.Compact(route.Parents)
	rule := mesh.Rule{Matches: []mesh.Match{{Path: mesh.StringMatch{Kind: mesh.Prefix, Value: "/" + name}}}, RequestTimeout: time.Duration(r.IntN(3)) * time.Second}
	for range 1 + r.IntN(3) {
		rule.Backends = append(rule.Backends, mesh.Backend{Service: r.name("s", 5), Port: uint16(80 + r.IntN(2)), Weight: r.Uint32N(3)})
	}
	route.Rules = []mesh.Rule{rule}
	return route
}

func (r changer) policy(name string) *mesh.AuthorizationPolicy {
	p := &mesh.AuthorizationPolicy{Meta: r.meta(mesh.KindAuthorizationPolicy, name), Deny: r.IntN(2) == 0}
	if r.IntN(3) > 0 {
		p.Targets = []mesh.Name{r.name("s", 4)}
	}
	caller := mesh.Caller{Namespace: "other"}
	if r.IntN(2) == 0 {
		id, _ := spiffeid.New("mesh.local", "default", fmt.Sprint("a", r.IntN(3)))
		caller = mesh.Caller{Identity: id}
	}
	p.Rules = []mesh.AuthorizationRule{{From: []mesh.Caller{caller}, Ports: []uint16{80}[:r.IntN(2)]}}
	return p
}
