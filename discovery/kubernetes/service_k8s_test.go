//go:build k8s

package kubernetes

import (
	"net/http"
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/heddle-mesh/heddle/controlplane/mesh"
)

var serviceKinds = []struct {
	name     string
	spec     m
	families string // of the virtual IPs, 4 and 6
	want     mesh.Service
}{
	{"cluster-ip", m{"selector": m{"app": "api"}}, "4", mesh.Service{Ports: []mesh.ServicePort{{Name: "http", Port: 80, Protocol: mesh.HTTP}}}},
	{"dual-stack", m{"ipFamilyPolicy": "RequireDualStack"}, "46", mesh.Service{Ports: []mesh.ServicePort{{Name: "http", Port: 80, Protocol: mesh.HTTP}}}},
	{"six-first", m{"ipFamilies": []string{"IPv6", "IPv4"}, "ipFamilyPolicy": "RequireDualStack"}, "64", mesh.Service{Ports: []mesh.ServicePort{{Name: "http", Port: 80, Protocol: mesh.HTTP}}}},
	{"headless", m{"clusterIP": "None", "publishNotReadyAddresses": true}, "",
		mesh.Service{Headless: true, PublishNotReady: true, Ports: []mesh.ServicePort{{Name: "http", Port: 80, Protocol: mesh.HTTP}}}},
	{"headless-without-ports", m{"clusterIP": "None", "ports": []m{}}, "", mesh.Service{Headless: true}},
	{"external-name", m{"type": "ExternalName", "externalName": "db.example.com"}, "", mesh.Service{ExternalName: "db.example.com"}},
	{"node-port", m{"type": "NodePort", "ports": []m{{"port": 5432}}}, "4", mesh.Service{Ports: []mesh.ServicePort{{Port: 5432, Protocol: mesh.TCP}}}},
	{"load-balancer", m{"type": "LoadBalancer", "ports": []m{{"name": "grpc-api", "port": 9000, "targetPort": "grpc"}}}, "4",
		mesh.Service{Ports: []mesh.ServicePort{{Name: "grpc-api", Port: 9000, Protocol: mesh.GRPC}}}},
	{"node-local", m{"internalTrafficPolicy": "Local", "ports": []m{{"port": 1}}}, "4", mesh.Service{NodeLocal: true, Ports: []mesh.ServicePort{{Port: 1, Protocol: mesh.TCP}}}},
	{"prefer-close", m{"trafficDistribution": "PreferClose", "ports": []m{{"port": 1}}}, "4", mesh.Service{Prefer: mesh.PreferZone, Ports: []mesh.ServicePort{{Port: 1, Protocol: mesh.TCP}}}},
	{"prefer-zone", m{"trafficDistribution": "PreferSameZone", "ports": []m{{"port": 1}}}, "4", mesh.Service{Prefer: mesh.PreferZone, Ports: []mesh.ServicePort{{Port: 1, Protocol: mesh.TCP}}}},
	{"prefer-node", m{"trafficDistribution": "PreferSameNode", "ports": []m{{"port": 1}}}, "4", mesh.Service{Prefer: mesh.PreferNode, Ports: []mesh.ServicePort{{Port: 1, Protocol: mesh.TCP}}}},
	{"udp-only", m{"ports": []m{{"name": "dns", "port": 53, "protocol": "UDP"}}}, "4", mesh.Service{}},
	{"udp-and-tcp", m{"ports": []m{{"name": "dns", "port": 53, "protocol": "UDP"}, {"name": "dns-tcp", "port": 53}, {"name": "sctp", "port": 7, "protocol": "SCTP"}}}, "4",
		mesh.Service{Ports: []mesh.ServicePort{{Name: "dns-tcp", Port: 53, Protocol: mesh.TCP}}}},
	{"app-protocols", m{"ports": []m{
		{"name": "a", "port": 1, "appProtocol": "http"}, {"name": "b", "port": 2, "appProtocol": "kubernetes.io/h2c"},
		{"name": "c", "port": 3, "appProtocol": "kubernetes.io/ws"}, {"name": "d", "port": 4, "appProtocol": "grpc"},
		{"name": "e", "port": 5, "appProtocol": "https"}, {"name": "http-f", "port": 6, "appProtocol": "mysql"},
		{"name": "http2-g", "port": 7}, {"name": "httpx", "port": 8}}}, "4",
		mesh.Service{Ports: []mesh.ServicePort{
			{Name: "a", Port: 1, Protocol: mesh.HTTP}, {Name: "b", Port: 2, Protocol: mesh.HTTP2}, {Name: "c", Port: 3, Protocol: mesh.HTTP}, {Name: "d", Port: 4, Protocol: mesh.GRPC},
			{Name: "e", Port: 5, Protocol: mesh.TCP}, {Name: "http-f", Port: 6, Protocol: mesh.TCP}, {Name: "http2-g", Port: 7, Protocol: mesh.HTTP2}, {Name: "httpx", Port: 8, Protocol: mesh.TCP}}}},
}

// TestServices makes one of every kind on the API server, which fills in its defaults.
func TestServices(t *testing.T) {
	b := newBench(t).start().synced()
	for _, tc := range serviceKinds {
		b.service(tc.name, tc.spec)
	}
	last := serviceKinds[len(serviceKinds)-1].name
	b.await("the last service is there", func(s *mesh.Snapshot) bool { return s.Services.Get(b.name(last)) != nil })
	for _, tc := range serviceKinds {
		t.Run(tc.name, func(t *testing.T) {
			got := b.store.Snapshot().Services.Get(b.name(tc.name))
			if got == nil {
				t.Fatal("not in the mesh")
			}
			families := ""
			for _, a := range got.VirtualIPs {
				if families += "6"; a.Is4() {
					families = families[:len(families)-1] + "4"
				}
			}
			if families != tc.families {
				t.Errorf("virtual IPs %v, want of families %q", got.VirtualIPs, tc.families)
			}
			if got.Created == 0 || got.Generation < 1 {
				t.Errorf("created %d, generation %d", got.Created, got.Generation)
			}
			want := tc.want
			want.Ref, want.Sliced = b.ref(mesh.KindService, tc.name), true
			if d := cmp.Diff(&want, got, cmpopts.IgnoreFields(mesh.Service{}, "VirtualIPs"), cmpopts.IgnoreFields(mesh.Meta{}, "Created", "Generation")); d != "" {
				t.Errorf("want -, got +:\n%s", d)
			}
		})
	}
	for _, tc := range serviceKinds {
		b.do(http.MethodDelete, b.path("services/"+tc.name), nil)
	}
	b.await("all services are gone", func(s *mesh.Snapshot) bool {
		for _, tc := range serviceKinds {
			if s.Services.Get(b.name(tc.name)) != nil {
				return false
			}
		}
		return true
	})
}

// TestEndpointSlices: of both families, with conditions said and unsaid, of names, mirrored
// for a Service without a selector, and of a headless Service's pods by name.
func TestEndpointSlices(t *testing.T) {
	b := newBench(t).start().synced()
	zero := b.running("db-0", podSpec{node: "n"}, "10.2.0.1", "fd00::2:1")
	one := b.running("db-1", podSpec{node: "n", plain: true}, "10.2.0.2")
	four := sliceOf("db", "db-four",
		m{"addresses": []string{"10.2.0.1"}, "hostname": "db-0", "zone": "zone-a", "nodeName": "n", "targetRef": m{"kind": "Pod", "name": "db-0", "uid": zero}},
		m{"addresses": []string{"10.2.0.2"}, "hostname": "db-1", "conditions": m{"ready": false, "serving": true, "terminating": true}, "targetRef": m{"kind": "Pod", "name": "db-1", "uid": one}},
		m{"addresses": []string{"10.2.0.3"}, "conditions": m{"ready": false}},
		m{"addresses": []string{"10.2.0.4"}, "conditions": m{"ready": true, "serving": true, "terminating": true}})
	four["ports"] = []m{{"name": "pg", "port": 5432}, {"name": "stats", "port": 1, "protocol": "UDP"}, {"name": "any"}}
	six := sliceOf("db", "db-six", endpointAt("fd00::2:1", "db-0", zero))
	six["addressType"] = "IPv6"
	names := sliceOf("db", "db-names", m{"addresses": []string{"db.example.com"}})
	names["addressType"] = "FQDN"
	stray := sliceOf("", "stray", m{"addresses": []string{"10.2.0.9"}})
	stray["metadata"] = m{"name": "stray"}
	mirrored := sliceOf("outside", "outside-x", m{"addresses": []string{"192.0.2.7"}})
	for _, s := range []m{names, stray, four, six, mirrored} {
		b.do(http.MethodPost, b.slicePath(""), s)
	}
	b.await("the last slice is there", func(s *mesh.Snapshot) bool { return s.Slices.Get(b.name("outside-x")) != nil })
	s := b.store.Snapshot()
	at := func(a string) []netip.Addr { return []netip.Addr{netip.MustParseAddr(a)} }
	for name, want := range map[string]*mesh.EndpointSlice{
		"db-four": {Service: "db", Ports: []mesh.EndpointPort{{Name: "pg", Number: 5432}}, Endpoints: []mesh.Endpoint{
			{Addresses: at("10.2.0.1"), Hostname: "db-0", Workload: "db-0", Ready: true, Serving: true, Zone: "zone-a", Node: "n"},
			{Addresses: at("10.2.0.2"), Hostname: "db-1", Workload: "db-1", Serving: true},
			{Addresses: at("10.2.0.3")},
			{Addresses: at("10.2.0.4"), Serving: true}}},
		"db-six":    {Service: "db", Ports: []mesh.EndpointPort{{Name: "http", Number: 8080}}, Endpoints: []mesh.Endpoint{{Addresses: at("fd00::2:1"), Workload: "db-0", Ready: true, Serving: true}}},
		"outside-x": {Service: "outside", Ports: []mesh.EndpointPort{{Name: "http", Number: 8080}}, Endpoints: []mesh.Endpoint{{Addresses: at("192.0.2.7"), Ready: true, Serving: true}}},
	} {
		if d := cmp.Diff(want, s.Slices.Get(b.name(name)), cmpopts.IgnoreFields(mesh.EndpointSlice{}, "Meta"), cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); d != "" {
			t.Errorf("%s: want -, got +:\n%s", name, d)
		}
	}
	for _, name := range []string{"db-names", "stray"} {
		if s.Slices.Get(b.name(name)) != nil {
			t.Errorf("%s is in the mesh", name)
		}
	}
	b.do(http.MethodDelete, b.slicePath("/db-four"), nil)
	b.await("a slice is gone", func(s *mesh.Snapshot) bool { return s.Slices.Get(b.name("db-four")) == nil })
}
