//go:build k8s

package kubernetes

import (
	"testing"

	"github.com/heddle-mesh/heddle/controlplane/mesh"
)

// TestFirstSubmitIsComplete: what there is comes in one submit, so that no proxy ever sees
// half of a mesh.
func TestFirstSubmitIsComplete(t *testing.T) {
	b := newBench(t)
	b.install(mesh.KindHTTPRoute)
	b.node("first-node", "zone-a")
	b.service("api", m{})
	uid := b.running("api-0", podSpec{node: "first-node", account: "api", labels: m{"app": "api"}}, "10.1.0.1", "fd00::1")
	b.slice("api", "api-1", endpointAt("10.1.0.1", "api-0", uid))
	b.start().synced()
	if n := b.mark(); n != 1 {
		t.Errorf("%d submits until all was there, want one", n)
	}
	s := b.store.Snapshot()
	w := s.Workloads.Get(b.name("api-0"))
	if w == nil || w.Zone != "zone-a" || w.Identity.String() != "spiffe://shop.example/ns/"+b.ns+"/sa/api" || len(w.Addresses) != 2 || w.Labels["app"] != "api" {
		t.Fatalf("workload is %+v", w)
	}
	if members := s.Members(s.Services.Get(b.name("api"))); len(members) != 1 || members[0] != w {
		t.Errorf("members of the service are %v", members)
	}
	if p, ok := b.source.Pod(b.ns, "api-0"); !ok || p.UID != uid || p.ServiceAccount != "api" || !p.Injected || len(p.Addresses) != 2 {
		t.Errorf("pod is %+v, %v", p, ok)
	}
}
