package controlplane

import (
	"maps"
	"net/netip"
	"strings"
	"testing"

	"github.com/heddle-mesh/heddle/controlplane/mesh"
	"github.com/heddle-mesh/heddle/controlplane/xds"
)

// TestSubmitAllOrNone submits a good change together with one that cannot be translated: a
// name that is not UTF-8, which no source lets through. Nothing of either may stay, and
// the same good change alone goes through.
func TestSubmitAllOrNone(t *testing.T) {
	cache := xds.NewCache()
	p, err := NewPipeline(mesh.DefaultMeshConfig(), cache, testPrefixes...)
	if err != nil {
		t.Fatal(err)
	}
	service := func(name string, port uint16) *mesh.Service {
		ref := mesh.Ref{Kind: mesh.KindService, Name: mesh.Name{Namespace: "default", Name: name}}
		return &mesh.Service{
			Meta: mesh.Meta{Ref: ref, Generation: int64(port)}, VirtualIPs: []netip.Addr{netip.MustParseAddr("100.96.0.9")},
			Ports: []mesh.ServicePort{{Port: port, Target: port, Protocol: mesh.HTTP}},
		}
	}
	if _, err := p.Submit([]mesh.Change{mesh.Set(service("api", 80))}); err != nil {
		t.Fatal(err)
	}
	before, revision, held := p.Snapshot(), cache.Revision(), contents(cache)
	good, bad := mesh.Set(service("api", 81)), mesh.Set(service("\xff", 80))
	if _, err := p.Submit([]mesh.Change{good, bad}); err == nil || !strings.Contains(err.Error(), "UTF-8") {
		t.Fatalf("the error is %v", err)
	}
	if p.Snapshot() != before || cache.Revision() != revision || !maps.Equal(contents(cache), held) {
		t.Errorf("the mesh was at %d and is at %d, the cache at %d and %d", before.Revision, p.Snapshot().Revision, revision, cache.Revision())
	}
	if _, err := p.Submit([]mesh.Change{good}); err != nil {
		t.Fatal(err)
	}
	if maps.Equal(contents(cache), held) {
		t.Error("the good change alone changed nothing")
	}
	if _, err := p.Submit([]mesh.Change{mesh.Set(service("api", 80))}); err != nil {
		t.Fatal(err)
	}
	if got := contents(cache); !maps.Equal(got, held) {
		t.Errorf("taking it back gives %v, not %v", got, held)
	}
}
