package kubernetes

import (
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"

	"github.com/heddle-mesh/heddle/controlplane/mesh"
)

var compareAddrs = cmp.Comparer(func(a, b netip.Addr) bool { return a == b })

func addrs(texts ...string) []netip.Addr { return addresses(texts) }

func ptr[V any](v V) *V { return &v }

func TestService(t *testing.T) {
	for _, tc := range []struct {
		name string
		spec corev1.ServiceSpec
		want mesh.Service
	}{
		{"of an API server that knows one family only", corev1.ServiceSpec{ClusterIP: "10.0.0.1"}, mesh.Service{VirtualIPs: addrs("10.0.0.1")}},
		{"both families", corev1.ServiceSpec{ClusterIP: "fd00::1", ClusterIPs: []string{"fd00::1", "10.0.0.1"}}, mesh.Service{VirtualIPs: addrs("fd00::1", "10.0.0.1")}},
		{"no address yet", corev1.ServiceSpec{}, mesh.Service{}},
		{"nonsense for an address", corev1.ServiceSpec{ClusterIP: "x", ClusterIPs: []string{"x", "10.0.0.1", "10.0.0.2"}}, mesh.Service{VirtualIPs: addrs("10.0.0.1")}},
		{"headless", corev1.ServiceSpec{ClusterIP: "None", ClusterIPs: []string{"None"}}, mesh.Service{Headless: true}},
		{"a name outside has no ports", corev1.ServiceSpec{Type: corev1.ServiceTypeExternalName, ExternalName: "x.example", Ports: []corev1.ServicePort{{Port: 80}}}, mesh.Service{ExternalName: "x.example"}},
		{"node-local", corev1.ServiceSpec{InternalTrafficPolicy: ptr(corev1.ServiceInternalTrafficPolicyLocal)}, mesh.Service{NodeLocal: true}},
		{"not node-local", corev1.ServiceSpec{InternalTrafficPolicy: ptr(corev1.ServiceInternalTrafficPolicyCluster)}, mesh.Service{}},
		{"a preference of the future", corev1.ServiceSpec{TrafficDistribution: ptr("PreferMoon")}, mesh.Service{}},
		{"appProtocol beats the name", corev1.ServiceSpec{Ports: []corev1.ServicePort{{Name: "http-x", Port: 1, AppProtocol: ptr("grpc")}, {Name: "http-y", Port: 2, Protocol: corev1.ProtocolUDP}}},
			mesh.Service{Ports: []mesh.ServicePort{{Name: "http-x", Port: 1, Protocol: mesh.GRPC}}}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := &corev1.Service{Spec: tc.spec}
			s.Namespace, s.Name = "shop", "api"
			tc.want.Meta = mesh.Meta{Ref: mesh.Ref{Kind: mesh.KindService, Name: mesh.Name{Namespace: "shop", Name: "api"}}, Generation: 1}
			tc.want.Sliced = true
			if d := cmp.Diff(&tc.want, service(s), compareAddrs); d != "" {
				t.Errorf("want -, got +:\n%s", d)
			}
		})
	}
}
