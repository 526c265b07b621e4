package mesh

import (
	"cmp"
	"slices"
)

// Snapshot is the whole mesh at one revision. It never changes.
type Snapshot struct {
	Revision  uint64
	Config    *MeshConfig
	Services  Table[*Service]
	Workloads Table[*Workload]
	// HTTPRoutes and GRPCRoutes are tables of their own since their names may coincide.
	HTTPRoutes, GRPCRoutes Table[*Route]
	Policies               Table[*AuthorizationPolicy]

	// The indices say who has to do with a service or a namespace:
	// derived from the tables above, kept with them.
	selecting   Table[[]*Service]             // by one label of their selector, see firstSelectorKey
	labelled    Table[[]*Workload]            // by each of their labels, see labelKeys
	workloadsIn Table[[]*Workload]            // by Name{namespace, ""}
	routesOf    Table[[]*Route]               // by parent service
	usersOf     Table[[]*Route]               // by backend service
	policiesIn  Table[[]*AuthorizationPolicy] // by Name{namespace, ""}
}

// Get gives the object that r names, or nil.
func (s *Snapshot) Get(r Ref) Object {
	switch r.Kind {
	case KindService:
		return orNil(s.Services.Lookup(r.Name))
	case KindWorkload:
		return orNil(s.Workloads.Lookup(r.Name))
	case KindHTTPRoute:
		return orNil(s.HTTPRoutes.Lookup(r.Name))
	case KindGRPCRoute:
		return orNil(s.GRPCRoutes.Lookup(r.Name))
	case KindAuthorizationPolicy:
		return orNil(s.Policies.Lookup(r.Name))
	case KindMeshConfig:
		if s.Config != nil && s.Config.Ref == r {
			return s.Config
		}
	}
	return nil
}

func orNil[V Object](v V, ok bool) Object {
	if !ok {
		return nil
	}
	return v
}

// Members are the workloads that serve s, by name. The cost is that of the rarest label
// which s selects, whatever else the namespace holds.
func (s *Snapshot) Members(svc *Service) []*Workload {
	var candidates, out []*Workload
	for i, k := range selectorKeys(svc) {
		if list := s.labelled.Get(k); i == 0 || len(list) < len(candidates) {
			candidates = list
		}
	}
	for _, w := range candidates {
		if svc.Selects(w.Namespace, w.Labels) {
			out = append(out, w)
		}
	}
	return out
}

// WorkloadsIn are the workloads of a namespace, by name.
func (s *Snapshot) WorkloadsIn(namespace string) []*Workload {
	return s.workloadsIn.Get(Name{namespace, ""})
}

// ServicesOf are the services that select w, by name.
func (s *Snapshot) ServicesOf(w *Workload) []*Service {
	var out []*Service
	for _, k := range workloadKeys(w) {
		for _, svc := range s.selecting.Get(k) {
			if svc.Selects(w.Namespace, w.Labels) {
				out = append(out, svc)
			}
		}
	}
	slices.SortFunc(out, compareRefs)
	return out
}

// RoutesOf are the routes attached to a service, the most important first: by Gateway
// API's rule the oldest wins, then the first by name. Whether a single match is more
// specific is weighed later, among all of them.
func (s *Snapshot) RoutesOf(service Name) []*Route { return s.routesOf.Get(service) }

// RoutesTo are the routes with service among their backends or mirrors.
func (s *Snapshot) RoutesTo(service Name) []*Route { return s.usersOf.Get(service) }

// PoliciesFor are the authorization policies that a workload which serves the given
// services enforces, by name.
func (s *Snapshot) PoliciesFor(namespace string, services []*Service) []*AuthorizationPolicy {
	var out []*AuthorizationPolicy
	for _, p := range s.policiesIn.Get(Name{namespace, ""}) {
		targeted := len(p.Targets) == 0 || slices.ContainsFunc(services, func(svc *Service) bool {
			return slices.Contains(p.Targets, svc.Name)
		})
		if targeted {
			out = append(out, p)
		}
	}
	return out
}

func compareRoutes(a, b *Route) int {
	return cmp.Or(cmp.Compare(a.Created, b.Created), a.Ref.Compare(b.Ref))
}

func compareRefs[O Object](a, b O) int { return a.Header().Ref.Compare(b.Header().Ref) }
