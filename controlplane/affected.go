package controlplane

import (
	"slices"

	"github.com/heddle-mesh/heddle/controlplane/mesh"
)

// affected lists the owners of resources that changes may have touched: services,
// workloads and the mesh's settings, in a fixed order. It may name too many, never too
// few; FuzzIncremental holds it to that.
func affected(before, after *mesh.Snapshot, changes []mesh.Change) []mesh.Ref {
	a := touched{refs: map[mesh.Ref]bool{}}
	for _, c := range changes {
		if c.Ref.Kind == mesh.KindMeshConfig {
			return everything(before, after)
		}
		for _, s := range []*mesh.Snapshot{before, after} {
			if o := s.Get(c.Ref); o != nil {
				a.object(s, o)
			}
		}
	}
	return a.sorted()
}

// everything lists all owners of some snapshots.
func everything(snapshots ...*mesh.Snapshot) []mesh.Ref {
	a := touched{refs: map[mesh.Ref]bool{}}
	for _, s := range snapshots {
		a.refs[s.Config.Ref] = true
		for _, svc := range s.Services.All() {
			a.refs[svc.Ref] = true
		}
		for _, w := range s.Workloads.All() {
			a.refs[w.Ref] = true
		}
	}
	return a.sorted()
}

type touched struct{ refs map[mesh.Ref]bool }

func (t touched) sorted() []mesh.Ref {
	out := make([]mesh.Ref, 0, len(t.refs))
	for r := range t.refs {
		out = append(out, r)
	}
	slices.SortFunc(out, mesh.Ref.Compare)
	return out
}

func (t touched) services(names []mesh.Name) {
	for _, n := range names {
		t.refs[mesh.Ref{Kind: mesh.KindService, Name: n}] = true
	}
}

func (t touched) workloads(ws []*mesh.Workload) {
	for _, w := range ws {
		t.refs[w.Ref] = true
	}
}

// object marks what depends on o as it is in s.
func (t touched) object(s *mesh.Snapshot, o mesh.Object) {
	switch o := o.(type) {
	case *mesh.Service:
		t.refs[o.Ref] = true
		t.workloads(s.Members(o)) // their inbound ports speak what the service says
		for _, r := range s.RoutesTo(o.Name) {
			t.services(r.ParentServices()) // its backends exist, or no more
		}
		t.explicit(s, o.Name)
	case *mesh.Workload:
		t.refs[o.Ref] = true
		for _, svc := range s.ServicesOf(o) {
			t.refs[svc.Ref] = true
		}
	case *mesh.Route:
		t.services(o.ParentServices())
	case *mesh.AuthorizationPolicy:
		t.policy(s, o)
	}
}

// explicit marks the workloads that name the service as an upstream: their listeners
// speak the protocol of its port.
func (t touched) explicit(s *mesh.Snapshot, service mesh.Name) {
	for _, w := range s.Workloads.All() {
		if slices.ContainsFunc(w.Upstreams, func(u mesh.Upstream) bool { return u.Service == service }) {
			t.refs[w.Ref] = true
		}
	}
}

func (t touched) policy(s *mesh.Snapshot, p *mesh.AuthorizationPolicy) {
	if len(p.Targets) == 0 {
		for _, w := range s.WorkloadsIn(p.Namespace) {
			t.refs[w.Ref] = true
		}
	}
	for _, target := range p.Targets {
		if svc, ok := s.Services.Lookup(target); ok {
			t.workloads(s.Members(svc))
		}
	}
}
