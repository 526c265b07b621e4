package translate

import (
	"net/netip"
	"testing"

	"github.com/heddle-mesh/heddle/controlplane/mesh"
)

// TestOpenPort has a workload of the mesh whose proxy leaves one of its ports alone.
func TestOpenPort(t *testing.T) {
	members := &Members{Members: []Member{{
		Identity: "spiffe://mesh.local/ns/shop/sa/web", Addresses: []netip.Addr{netip.MustParseAddr("10.0.0.1")}, Ready: true,
		Ports: []MemberPort{{Service: 80, Number: 8080}, {Service: 8000, Number: 8081, Open: true}},
	}}}
	for port, outside := range map[uint16]bool{80: false, 8000: true} {
		cla := Endpoints(EndpointsIn{Service: mesh.Name{Namespace: "shop", Name: "web"}, Port: mesh.ServicePort{Port: port}, Members: members})
		if got := cla.Endpoints[0].LbEndpoints[0].Metadata != nil; got != outside {
			t.Errorf("port %d is marked as outside of the mesh: %v, want %v", port, got, outside)
		}
		if got := members.Members[0].Outside(port); got != outside {
			t.Errorf("port %d is outside: %v, want %v", port, got, outside)
		}
	}
}
