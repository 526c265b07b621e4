package controlplane

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/heddle-mesh/heddle/controlplane/mesh"
	"github.com/heddle-mesh/heddle/controlplane/xds"
	"github.com/heddle-mesh/heddle/identity/spiffeid"
)

// BenchmarkSubmit measures what one change costs from its object to the cache, in meshes
// of 100 and 1,000 services with two endpoints and a route each: growth with the mesh
// must be small. Delivery to proxies is xds.BenchmarkPush.
func BenchmarkSubmit(b *testing.B) {
	for _, services := range []int{100, 1000} {
		for _, change := range []struct {
			name string
			make func(i int) mesh.Object
		}{
			{"endpoint", func(i int) mesh.Object { return benchWorkload(0, 0, i%2 == 0) }},
			{"route", func(i int) mesh.Object { return benchRoute(0, uint32(i%100)) }},
			{"policy", func(i int) mesh.Object {
				p := &mesh.AuthorizationPolicy{Meta: benchMeta(mesh.KindAuthorizationPolicy, "p"), Targets: []mesh.Name{{Namespace: "default", Name: "s0"}}}
				p.Rules = []mesh.AuthorizationRule{{From: []mesh.Caller{{Namespace: fmt.Sprint("n", i%2)}}}}
				return p
			}},
		} {
			b.Run(fmt.Sprintf("services=%d/%s", services, change.name), func(b *testing.B) {
				p, err := NewPipeline(mesh.DefaultMeshConfig(), xds.NewCache(), testPrefixes...)
				if err != nil {
					b.Fatal(err)
				}
				if _, err := p.Submit(benchMesh(services)); err != nil {
					b.Fatal(err)
				}
				b.ReportAllocs()
				for i := 0; b.Loop(); i++ {
					if _, err := p.Submit([]mesh.Change{mesh.Set(change.make(i))}); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}

func benchMeta(kind mesh.Kind, name string) mesh.Meta {
	return mesh.Meta{Ref: mesh.Ref{Kind: kind, Name: mesh.Name{Namespace: "default", Name: name}}, Generation: 1}
}

func benchMesh(services int) []mesh.Change {
	var out []mesh.Change
	for i := range services {
		out = append(out, mesh.Set(&mesh.Service{
			Meta: benchMeta(mesh.KindService, fmt.Sprint("s", i)), Selector: map[string]string{"app": fmt.Sprint("s", i)},
			VirtualIPs: []netip.Addr{netip.AddrFrom4([4]byte{100, 96, byte(i >> 8), byte(i)})},
			Ports:      []mesh.ServicePort{{Name: "http", Port: 80, Target: 8080, Protocol: mesh.HTTP}},
		}), mesh.Set(benchWorkload(i, 0, true)), mesh.Set(benchWorkload(i, 1, true)), mesh.Set(benchRoute(i, 1)))
	}
	return out
}

func benchWorkload(service, n int, ready bool) *mesh.Workload {
	id, err := spiffeid.New("mesh.local", "default", fmt.Sprint("s", service))
	if err != nil {
		panic(err) // of constants
	}
	return &mesh.Workload{
		Meta:     benchMeta(mesh.KindWorkload, fmt.Sprintf("s%d-%d", service, n)),
		Identity: id, Labels: map[string]string{"app": fmt.Sprint("s", service)}, Ready: ready, Capture: mesh.Transparent,
		Addresses: []netip.Addr{netip.AddrFrom4([4]byte{10, 68 + byte(n), byte(service >> 8), byte(service)})},
		Ports:     []mesh.WorkloadPort{{App: 8080, Peer: 8080}},
	}
}

func benchRoute(service int, weight uint32) *mesh.Route {
	name := mesh.Name{Namespace: "default", Name: fmt.Sprint("s", service)}
	return &mesh.Route{
		Meta: benchMeta(mesh.KindHTTPRoute, fmt.Sprint("r", service)), Parents: []mesh.Parent{{Service: name}},
		Rules: []mesh.Rule{{
			Matches:  []mesh.Match{{Path: mesh.StringMatch{Kind: mesh.Prefix, Value: "/"}}},
			Backends: []mesh.Backend{{Service: name, Port: 80, Weight: 100}, {Service: name, Port: 80, Weight: weight}},
		}},
	}
}
