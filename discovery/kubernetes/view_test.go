package kubernetes

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"reflect"
	"testing"

	"github.com/heddle-mesh/heddle/controlplane/mesh"
	"github.com/heddle-mesh/heddle/identity/spiffeid"
)

func shop(name string) mesh.Name { return mesh.Name{Namespace: "shop", Name: name} }

// aPod is a pod of the mesh.
func aPod(name, uid string, created int64, ips ...string) *pod {
	id, err := spiffeid.New("shop.example", "shop", name)
	if err != nil {
		panic(err)
	}
	p := &pod{Pod: Pod{UID: uid, Node: "n1", Addresses: addrs(ips...), Injected: true}, created: created}
	if len(ips) > 0 {
		p.workload = &mesh.Workload{Meta: mesh.Meta{Ref: mesh.Ref{Kind: mesh.KindWorkload, Name: shop(name)}}, Identity: id, Node: "n1", Addresses: p.Addresses}
	}
	return p
}

func aSlice(name string, endpoints ...string) *slice {
	s := &slice{EndpointSlice: &mesh.EndpointSlice{Meta: mesh.Meta{Ref: mesh.Ref{Kind: mesh.KindEndpointSlice, Name: shop(name)}}, Service: "api"}}
	for i := 0; i < len(endpoints); i += 3 { // pod, UID, address
		s.Endpoints = append(s.Endpoints, mesh.Endpoint{Workload: endpoints[i], Addresses: addrs(endpoints[i+2])})
		s.uids = append(s.uids, endpoints[i+1])
	}
	return s
}

func TestViewOfEndpoints(t *testing.T) {
	plain := func(p *pod) *pod { p.Injected, p.workload = false, nil; return p }
	ended := func(p *pod) *pod { p.ended, p.workload, p.Addresses = true, nil, nil; return p }
	ending := func(p *pod) *pod { p.ending = true; return p }
	for _, tc := range []struct {
		name string
		pods map[string]*pod
		want bool // the endpoint of pod a, UID u, at 10.0.0.1 is in the mesh
	}{
		{"its pod", map[string]*pod{"a": aPod("a", "u", 1, "10.0.0.1")}, true},
		{"no pod yet, or no more", nil, false},
		{"another pod of the name", map[string]*pod{"a": aPod("a", "v", 1, "10.0.0.1")}, false},
		{"its pod has ended", map[string]*pod{"a": ended(aPod("a", "u", 1, "10.0.0.1"))}, false},
		{"its pod has no address yet", map[string]*pod{"a": aPod("a", "u", 1)}, false},
		{"its pod has another address by now", map[string]*pod{"a": aPod("a", "u", 1, "10.0.0.2")}, false},
		{"a pod outside of the mesh", map[string]*pod{"a": plain(aPod("a", "u", 1, "10.0.0.1"))}, true},
		{"a pod outside, in its node's network", map[string]*pod{"a": plain(aPod("a", "u", 1))}, true},
		{"a newer pod has the address", map[string]*pod{"a": aPod("a", "u", 1, "10.0.0.1"), "b": aPod("b", "w", 2, "10.0.0.1")}, false},
		{"a newer pod outside of the mesh has the address", map[string]*pod{"a": aPod("a", "u", 1, "10.0.0.1"), "b": plain(aPod("b", "w", 2, "10.0.0.1"))}, false},
		{"an older pod had the address", map[string]*pod{"a": aPod("a", "u", 2, "10.0.0.1"), "b": aPod("b", "w", 1, "10.0.0.1")}, true},
		{"a pod of the same second had the address", map[string]*pod{"a": aPod("a", "u", 1, "10.0.0.1"), "b": ending(aPod("b", "w", 1, "10.0.0.1"))}, true},
		{"it is ending, and the address is another's", map[string]*pod{"a": ending(aPod("a", "u", 2, "10.0.0.1")), "b": aPod("b", "w", 1, "10.0.0.1")}, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			v := newView()
			v.setSlice(update[*slice]{name: shop("s"), value: aSlice("s", "a", "u", "10.0.0.1")})
			for name, p := range tc.pods {
				v.setPod(update[*pod]{name: shop(name), value: p})
			}
			out := v.take()
			s := out[mesh.Ref{Kind: mesh.KindEndpointSlice, Name: shop("s")}].(*mesh.EndpointSlice)
			if got := len(s.Endpoints) == 1; got != tc.want {
				t.Errorf("in the mesh: %v, want %v", got, tc.want)
			}
		})
	}
}

// FuzzView changes pods, slices and nodes at random. After each step what has come out
// must equal what a new view makes of the same state, and hold together.
func FuzzView(f *testing.F) {
	for seed := range uint64(20) {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, seed uint64) {
		r := rand.New(rand.NewPCG(seed, 0))
		v, got := newView(), map[mesh.Ref]mesh.Object{}
		for step := range 60 {
			changeAtRandom(r, v)
			put(got, v.take())
			want := map[mesh.Ref]mesh.Object{}
			put(want, rebuilt(v).take())
			if !reflect.DeepEqual(got, want) {
				t.Fatalf("step %d: the view has %v, made anew it has %v", step, got, want)
			}
			checkTogether(t, v, got)
		}
	})
}

func changeAtRandom(r *rand.Rand, v *view) {
	ip := func() string { return fmt.Sprintf("10.0.0.%d", 1+r.IntN(4)) }
	for range 1 + r.IntN(3) {
		name := fmt.Sprintf("p%d", r.IntN(5))
		switch r.IntN(6) {
		case 0:
			v.setPod(update[*pod]{name: shop(name), gone: true})
		case 1, 2:
			p := aPod(name, fmt.Sprint(r.IntN(2)), r.Int64N(3), ip(), ip())
			p.workload.Addresses = oneOfEach(p.Addresses)
			p.ending = r.IntN(4) == 0
			p.Node = fmt.Sprintf("n%d", r.IntN(2))
			v.setPod(update[*pod]{name: shop(name), value: p})
		case 3:
			v.setSlice(update[*slice]{name: shop("s" + name), gone: true})
		case 4:
			v.setSlice(update[*slice]{name: shop("s" + name), value: aSlice("s"+name, name, fmt.Sprint(r.IntN(2)), ip(), fmt.Sprintf("p%d", r.IntN(5)), "", ip())})
		case 5:
			v.setZone(update[string]{name: mesh.Name{Name: fmt.Sprintf("n%d", r.IntN(2))}, value: fmt.Sprint(r.IntN(3)), gone: r.IntN(3) == 0})
		}
	}
}

// rebuilt is a new view of the same pods, slices and zones.
func rebuilt(v *view) *view {
	next := newView()
	for n, z := range v.zones {
		next.setZone(update[string]{name: mesh.Name{Name: n}, value: z})
	}
	for n, s := range v.slices {
		next.setSlice(update[*slice]{name: n, value: s})
	}
	for n, p := range v.pods {
		next.setPod(update[*pod]{name: n, value: p})
	}
	return next
}

func put(into, changed map[mesh.Ref]mesh.Object) {
	maps.Copy(into, changed)
	maps.DeleteFunc(into, func(_ mesh.Ref, o mesh.Object) bool { return o == nil })
}

// checkTogether: no address is two workloads', and no endpoint of a pod with a sidecar is
// in the mesh without its workload.
func checkTogether(t *testing.T, v *view, all map[mesh.Ref]mesh.Object) {
	t.Helper()
	at := map[netip.Addr]mesh.Name{}
	for _, o := range all {
		if w, ok := o.(*mesh.Workload); ok {
			for _, a := range w.Addresses {
				if other, taken := at[a]; taken {
					t.Fatalf("%s is the address of %s and of %s", a, other, w.Name)
				}
				at[a] = w.Name
			}
		}
	}
	for _, o := range all {
		s, ok := o.(*mesh.EndpointSlice)
		if !ok {
			continue
		}
		for _, e := range s.Endpoints {
			n := mesh.Name{Namespace: s.Namespace, Name: e.Workload}
			if v.pods[n].Injected && at[e.Addresses[0]] != n {
				t.Fatalf("slice %s leads to %s at %s, which is %v", s.Name, n, e.Addresses[0], at[e.Addresses[0]])
			}
		}
	}
}

// TestPolicyOutlivesNothing: of a namespace that stays, a policy goes at once.
func TestPolicyOutlivesNothing(t *testing.T) {
	v := newView()
	ref := mesh.Ref{Kind: mesh.KindAuthorizationPolicy, Name: shop("p")}
	gone := func() bool { o, ok := v.take()[ref]; return ok && o == nil }
	v.setNamespace(update[bool]{name: mesh.Name{Name: "shop"}})
	if v.setDocument(ref, nil); !gone() {
		t.Error("the policy stays in a namespace that stays")
	}
	v.setNamespace(update[bool]{name: mesh.Name{Name: "shop"}, value: true})
	if v.setDocument(ref, nil); gone() {
		t.Error("the policy goes before its namespace")
	}
	if v.setNamespace(update[bool]{name: mesh.Name{Name: "shop"}, gone: true}); !gone() {
		t.Error("the policy stays without its namespace")
	}
}
