package controlplane

import (
	"slices"

	"github.com/heddle-mesh/heddle/controlplane/mesh"
)

// affected lists the owners of resources that changes may have touched: services,
// workloads, their accounts, gateways and the mesh's settings, in a fixed order. It may name
// too many, never too few; FuzzIncremental holds it to that.
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
		markAll(a, s.Services)
		markAll(a, s.Workloads)
		markAll(a, s.Gateways)
		for _, w := range s.Workloads.All() {
			a.refs[accountRef(w)] = true
		}
	}
	return a.sorted()
}

// kindAccount is the kind of a service account. It is no object of the mesh, and owns what all
// proxies of one identity share.
const kindAccount mesh.Kind = "ServiceAccount"

func accountRef(w *mesh.Workload) mesh.Ref { return mesh.Ref{Kind: kindAccount, Name: w.Account()} }

type touched struct{ refs map[mesh.Ref]bool }

func markAll[O mesh.Object](t touched, table mesh.Table[O]) {
	for _, o := range table.All() {
		t.refs[o.Header().Ref] = true
	}
}

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

func (t touched) gateways(names []mesh.Name) {
	for _, n := range names {
		t.refs[mesh.Ref{Kind: mesh.KindGateway, Name: n}] = true
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
		t.workloads(s.CallersOf(o.Name)) // their listeners speak the protocol of its ports
		t.gateways(s.GatewaysOf(o.Ref))  // its port has that number, or none
		t.instances(s, o)
	case *mesh.EndpointSlice:
		if svc, ok := s.Services.Lookup(o.ServiceName()); ok {
			t.refs[svc.Ref] = true
			t.instances(s, svc)
		}
		for _, n := range o.Workloads() { // it says what leads to their ports
			if w, ok := s.Workloads.Lookup(n); ok {
				t.refs[w.Ref] = true
			}
		}
	case *mesh.Workload:
		t.refs[o.Ref] = true
		t.refs[accountRef(o)] = true
		for _, svc := range s.ServicesOf(o) {
			t.refs[svc.Ref] = true
			t.instances(s, svc)
		}
	case *mesh.Route:
		t.services(o.ParentServices())
		t.services(o.BackendServices()) // whoever uses a parent needs them
	case *mesh.AuthorizationPolicy:
		t.policy(s, o)
	case *mesh.Gateway:
		t.refs[o.Ref] = true
	case *mesh.Ingress:
		t.gateways([]mesh.Name{o.Gateway})
	case *mesh.Certificate:
		t.gateways(s.GatewaysOf(o.Ref))
	}
}

// instances marks the capture listener, which knows the addresses of headless pods.
func (t touched) instances(s *mesh.Snapshot, svc *mesh.Service) {
	if svc.Headless && svc.Sliced {
		t.refs[s.Config.Ref] = true
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
