package controlplane

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/heddle-mesh/heddle/controlplane/mesh"
	"github.com/heddle-mesh/heddle/controlplane/xds"
	"github.com/heddle-mesh/heddle/discovery/manifest"
)

// storyConfig is the MeshConfig of a story that gives none: the default without access
// log, which would be most of every golden. meshconfig-default.txtar shows it.
func storyConfig() *mesh.MeshConfig {
	config := mesh.DefaultMeshConfig()
	config.AccessLog = false
	return config
}

// tell submits the documents of a story, in one step, to an empty mesh. What comes first
// in the text is older, and services get virtual addresses by their names' order.
func tell(t *testing.T, name string, documents []byte) *xds.Cache {
	t.Helper()
	objects, err := manifest.Parse(name, documents, manifest.Options{Workloads: true})
	if err != nil {
		t.Fatal(err)
	}
	var changes []mesh.Change
	services := 0
	for _, o := range objects {
		meta := o.Object.Header()
		meta.Generation, meta.Created = 1, int64(o.Line)
		if s, ok := o.Object.(*mesh.Service); ok && !s.Headless {
			services++
			s.VirtualIPs = []netip.Addr{
				netip.AddrFrom4([4]byte{100, 96, 0, byte(services)}),
				netip.MustParseAddr(fmt.Sprintf("fd68:6564:646c:2::%x", services)),
			}
		}
		changes = append(changes, mesh.Set(o.Object))
	}
	cache := xds.NewCache()
	p, err := NewPipeline(storyConfig(), cache, testPrefixes...)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.Submit(changes); err != nil {
		t.Fatal(err)
	}
	return cache
}
