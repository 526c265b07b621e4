package kubernetes

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"testing"

	"github.com/heddle-mesh/heddle/controlplane/mesh"
)

// newSubmitter makes a submitter to a mesh that refuses whatever holds one of bad.
func newSubmitter(bad map[mesh.Ref]bool) (*submitter, *mesh.Store, *int) {
	store, submits := mesh.NewStore(mesh.DefaultMeshConfig()), new(int)
	return &submitter{log: slog.New(slog.DiscardHandler), rejected: newRejections(),
		inForce: map[mesh.Ref]mesh.Object{}, refused: map[mesh.Ref]mesh.Change{}, unreadable: map[mesh.Ref]bool{},
		submit: func(changes []mesh.Change) (uint64, error) {
			*submits++
			for _, c := range changes {
				if bad[c.Ref] {
					return 0, fmt.Errorf("cannot translate %s", c.Ref)
				}
			}
			return 0, store.Apply(changes, nil)
		}}, store, submits
}

func services(n int) map[mesh.Ref]mesh.Object {
	out := map[mesh.Ref]mesh.Object{}
	for i := range n {
		s := &mesh.Service{Meta: mesh.Meta{Ref: mesh.Ref{Kind: mesh.KindService, Name: shop(fmt.Sprintf("s%04d", i))}, Generation: 1}}
		out[s.Ref] = s
	}
	return out
}

func TestCulprits(t *testing.T) {
	for _, tc := range []struct {
		name    string
		bad     []int
		submits int // at most
	}{
		{"none", nil, 1},
		{"one", []int{17}, 21}, // two of each half of 1,000, and all of them
		{"the first and the last", []int{0, 999}, 40},
		{"neighbours", []int{500, 501, 502}, 50},
	} {
		t.Run(tc.name, func(t *testing.T) {
			all, bad := services(1000), map[mesh.Ref]bool{}
			for _, i := range tc.bad {
				bad[mesh.Ref{Kind: mesh.KindService, Name: shop(fmt.Sprintf("s%04d", i))}] = true
			}
			s, store, submits := newSubmitter(bad)
			if !s.bring(all) {
				t.Error("some were not tried")
			}
			if n := store.Snapshot().Services.Len(); n != 1000-len(bad) || *submits > tc.submits {
				t.Errorf("%d services with %d submits, want %d with at most %d", n, *submits, 1000-len(bad), tc.submits)
			}
			for ref := range s.rejected.all {
				if !bad[ref] {
					t.Errorf("%s is rejected", ref)
				}
			}
			if len(s.rejected.all) != len(bad) {
				t.Errorf("%d are rejected, want %d", len(s.rejected.all), len(bad))
			}
			clear(bad)
			if s.again(); store.Snapshot().Services.Len() != 1000 || len(s.rejected.all) != 0 {
				t.Errorf("%d services, %d rejected, when the reason is gone", store.Snapshot().Services.Len(), len(s.rejected.all))
			}
		})
	}
}

// TestMeshThatRefusesAll: it is not asked a thousand times, and nothing is forgotten.
func TestMeshThatRefusesAll(t *testing.T) {
	all, bad := services(1000), map[mesh.Ref]bool{}
	for ref := range all {
		bad[ref] = true
	}
	s, store, submits := newSubmitter(bad)
	if s.bring(all) {
		t.Error("all were tried")
	}
	if *submits > 4*maxRefusals || len(s.refused) != 1000 {
		t.Errorf("%d submits, %d wait", *submits, len(s.refused))
	}
	clear(bad)
	if *submits = 0; !s.again() || *submits != 1 || store.Snapshot().Services.Len() != 1000 {
		t.Errorf("%d services after %d submits more", store.Snapshot().Services.Len(), *submits)
	}
}

func TestBringSubmitsWhatDiffers(t *testing.T) {
	all := services(3)
	s, _, submits := newSubmitter(nil)
	s.bring(all)
	if s.bring(services(3)); *submits != 1 {
		t.Errorf("%d submits of the same", *submits)
	}
	ref := slices.MinFunc(slices.Collect(maps.Keys(all)), mesh.Ref.Compare)
	if s.bring(map[mesh.Ref]mesh.Object{ref: nil, {Kind: mesh.KindService, Name: shop("never")}: nil}); *submits != 2 || len(s.inForce) != 2 {
		t.Errorf("%d submits, %d in force", *submits, len(s.inForce))
	}
}

// TestUnreadableReplacesRefused: a value that was refused is not tried again when the
// object cannot be read any more.
func TestUnreadableReplacesRefused(t *testing.T) {
	all := services(1)
	ref := slices.Collect(maps.Keys(all))[0]
	bad := map[mesh.Ref]bool{ref: true}
	s, store, _ := newSubmitter(bad)
	s.bring(all)
	s.reject(ref, Rejection{2, errors.New("unknown field")})
	clear(bad)
	if s.again(); store.Snapshot().Services.Len() != 0 {
		t.Error("a value that is not the object's any more is in force")
	}
	if r := s.rejected.all[ref]; r.Generation != 2 {
		t.Errorf("rejected is %+v", r)
	}
}
