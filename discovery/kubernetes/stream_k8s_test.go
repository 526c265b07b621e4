//go:build k8s

package kubernetes

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/heddle-mesh/heddle/controlplane/mesh"
	"github.com/heddle-mesh/heddle/discovery/kubernetes/kubetest"
)

// TestWithoutStreams: an API server that does not stream lists is listed.
func TestWithoutStreams(t *testing.T) {
	older, err := kubetest.Start(t.Context(), t.TempDir(), "--feature-gates=WatchList=false")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(older.Stop)
	b := newBenchOn(t, older)
	b.node("listed-node", "zone-l")
	b.service("api", m{})
	uid := b.running("api-0", podSpec{node: "listed-node"}, "10.20.0.1")
	b.slice("api", "api-s", endpointAt("10.20.0.1", "api-0", uid))
	b.start().synced()
	if s := b.store.Snapshot(); !b.served(s, "api") || s.Workloads.Get(b.name("api-0")).Zone != "zone-l" {
		t.Error("the mesh is not complete")
	}
	b.populate("after", "10.20.0.2")
	if _, _, paths := b.requests.take(); !slices.ContainsFunc(paths, func(p string) bool { return strings.Contains(p, "/pods?limit=") }) {
		t.Errorf("nothing was listed: %v", paths)
	}
	if strings.Contains(b.log.String(), "level=WARN") {
		t.Errorf("it is no fault:\n%s", b.log)
	}
}

// TestPages: a list comes in pages, each converted before the next is asked for.
func TestPages(t *testing.T) {
	b := newBench(t)
	for i := range 5 {
		b.service(fmt.Sprintf("s%d", i), m{})
	}
	client, err := newClient(b.config.REST)
	if err != nil {
		t.Fatal(err)
	}
	var source Source
	source.openKinds()
	r := *source.kinds.services.resource
	r.path = "/api/v1/namespaces/" + b.ns + "/services"
	pages, names := 0, ""
	for o := (metav1.ListOptions{Limit: 2}); pages == 0 || o.Continue != ""; pages++ {
		page, err := r.page(t.Context(), client, o)
		if err != nil {
			t.Fatal(err)
		}
		for _, i := range page.(*itemList).Items {
			names += i.Name + " "
			if i.value.(*mesh.Service).Ref != b.ref(mesh.KindService, i.Name) {
				t.Errorf("item %s holds %+v", i.Name, i.value)
			}
		}
		o.Continue = page.(*itemList).Continue
	}
	if pages != 3 || names != "s0 s1 s2 s3 s4 " {
		t.Errorf("%d pages with %s", pages, names)
	}
}
