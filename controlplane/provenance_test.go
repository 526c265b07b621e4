package controlplane

import (
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/heddle-mesh/heddle/controlplane/mesh"
	"github.com/heddle-mesh/heddle/controlplane/xds"
)

// TestTracesEqualOrigins holds the index by origin to what the resources themselves say,
// after random changes.
func TestTracesEqualOrigins(t *testing.T) {
	random := changer{rand.New(rand.NewPCG(3, 3))}
	cache := xds.NewCache()
	p, err := NewPipeline(mesh.DefaultMeshConfig(), cache, testPrefixes...)
	if err != nil {
		t.Fatal(err)
	}
	for step := range 200 {
		before := map[xds.Key]string{}
		for r := range cache.All() {
			before[r.Key] = r.Version
		}
		revision, err := p.Submit(random.changes())
		if err != nil {
			t.Fatal(err)
		}
		want := map[mesh.Ref][]xds.Key{}
		for r := range cache.All() {
			for _, o := range r.Origins {
				want[refOf(o)] = append(want[refOf(o)], r.Key)
			}
			if at := p.ChangedAt(r.Key); at == 0 || before[r.Key] != r.Version && at != revision {
				t.Fatalf("step %d: %s is of revision %d at %d", step, r.Key, at, revision)
			}
		}
		if len(p.traces) != len(want) {
			t.Fatalf("step %d: %d traces for %d objects with resources", step, len(p.traces), len(want))
		}
		for ref, keys := range want {
			got := p.Trace(ref)
			if len(got.Keys) != len(keys) || got.Revision == 0 || got.Revision > revision {
				t.Fatalf("step %d: %s: trace %+v, want %v", step, ref, got, keys)
			}
			for _, k := range keys {
				if !slices.Contains(got.Keys, k) || p.ChangedAt(k) > got.Revision {
					t.Fatalf("step %d: %s: trace %+v lacks %s of %d", step, ref, got, k, p.ChangedAt(k))
				}
			}
		}
	}
}
