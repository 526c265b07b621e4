package mesh

import (
	"fmt"
	"iter"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/heddle-mesh/heddle/identity/spiffeid"
)

// TestIndices holds what a snapshot knows of services and workloads to what a walk over
// all of them finds, through changes that add, relabel and remove at random.
func TestIndices(t *testing.T) {
	const seed = 7
	r := rand.New(rand.NewPCG(seed, seed))
	store := NewStore(DefaultMeshConfig())
	some := func(prefix string, n int) string { return fmt.Sprint(prefix, r.IntN(n)) }
	labels := func(most int) map[string]string {
		out := map[string]string{}
		for range r.IntN(most + 1) {
			out[some("k", 3)] = some("v", 3)
		}
		return out
	}
	selected := 0
	for range 2000 {
		name := Name{some("ns", 2), some("o", 8)}
		ref := Ref{Kind: KindService, Name: name}
		var object Object = &Service{Meta: Meta{Ref: ref}, Selector: labels(2)}
		if r.IntN(2) == 0 {
			ref.Kind = KindWorkload
			w := &Workload{Meta: Meta{Ref: ref}, Labels: labels(3)}
			w.Identity, _ = spiffeid.New("mesh.local", some("ns", 2), some("sa", 3))
			for range r.IntN(4) {
				w.Upstreams = append(w.Upstreams, Upstream{Service: Name{some("ns", 2), some("o", 8)}})
			}
			object = w
		}
		if r.IntN(4) == 0 {
			object = nil
		}
		if err := store.Apply([]Change{{Ref: ref, Object: object}}, nil); err != nil {
			t.Fatal(err)
		}
		after := store.Snapshot()
		for _, svc := range after.Services.All() {
			want := which(after.Workloads.All(), func(w *Workload) bool { return svc.Selects(w.Namespace, w.Labels) })
			if got := after.Members(svc); !slices.Equal(got, want) {
				t.Fatalf("revision %d: members of %s: %v, not %v", after.Revision, svc.Ref, refs(got), refs(want))
			}
			selected += len(want)
			want = which(after.Workloads.All(), func(w *Workload) bool {
				return slices.ContainsFunc(w.Upstreams, func(u Upstream) bool { return u.Service == svc.Name })
			})
			if got := after.CallersOf(svc.Name); !slices.Equal(got, want) {
				t.Fatalf("revision %d: callers of %s: %v, not %v", after.Revision, svc.Ref, refs(got), refs(want))
			}
		}
		for _, w := range after.Workloads.All() {
			want := which(after.Services.All(), func(svc *Service) bool { return svc.Selects(w.Namespace, w.Labels) })
			if got := after.ServicesOf(w); !slices.Equal(got, want) {
				t.Fatalf("revision %d: services of %s: %v, not %v", after.Revision, w.Ref, refs(got), refs(want))
			}
			like := which(after.Workloads.All(), func(o *Workload) bool { return o.Identity == w.Identity })
			if got := after.Sharing(w.Account()); !slices.Equal(got, like) {
				t.Fatalf("revision %d: workloads of %s: %v, not %v", after.Revision, w.Identity, refs(got), refs(like))
			}
		}
	}
	if selected == 0 {
		t.Error("no service ever had a member")
	}
}

// which lists the values of a table that a condition holds for, by name.
func which[O Object](all iter.Seq2[Name, O], holds func(O) bool) (out []O) {
	for _, o := range all {
		if holds(o) {
			out = append(out, o)
		}
	}
	slices.SortFunc(out, compareRefs)
	return out
}

func refs[O Object](objects []O) (out []string) {
	for _, o := range objects {
		out = append(out, o.Header().Ref.String())
	}
	return out
}
