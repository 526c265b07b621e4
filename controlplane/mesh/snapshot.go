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
	Slices    Table[*EndpointSlice]
	Workloads Table[*Workload]
	// HTTPRoutes and GRPCRoutes are tables of their own since their names may coincide.
	HTTPRoutes, GRPCRoutes Table[*Route]
	Policies               Table[*AuthorizationPolicy]
	Gateways               Table[*Gateway]
	Ingresses              Table[*Ingress]
	Certificates           Table[*Certificate]

	// The indices say who has to do with a service or a namespace:
	// derived from the tables above, kept with them.
	selecting   Table[[]*Service]             // by one label of their selector, see firstSelectorKey
	slicesOf    Table[[]*EndpointSlice]       // by service
	slicesWith  Table[[]*EndpointSlice]       // by workload that they name
	labelled    Table[[]*Workload]            // by each of their labels, see labelKeys
	workloadsIn Table[[]*Workload]            // by Name{namespace, ""}
	sharing     Table[[]*Workload]            // by account
	callersOf   Table[[]*Workload]            // by service that they name as an upstream
	routesOf    Table[[]*Route]               // by parent service
	usersOf     Table[[]*Route]               // by backend service
	policiesIn  Table[[]*AuthorizationPolicy] // by Name{namespace, ""}
	ingressesOf Table[[]*Ingress]             // by gateway
	ingressesTo Table[[]*Ingress]             // by backend service
	holdersOf   Table[[]*Ingress]             // by Secret that they name
}

// Get gives the object that r names, or nil.
func (s *Snapshot) Get(r Ref) Object {
	switch r.Kind {
	case KindService:
		return orNil(s.Services.Lookup(r.Name))
	case KindEndpointSlice:
		return orNil(s.Slices.Lookup(r.Name))
	case KindWorkload:
		return orNil(s.Workloads.Lookup(r.Name))
	case KindHTTPRoute:
		return orNil(s.HTTPRoutes.Lookup(r.Name))
	case KindGRPCRoute:
		return orNil(s.GRPCRoutes.Lookup(r.Name))
	case KindAuthorizationPolicy:
		return orNil(s.Policies.Lookup(r.Name))
	case KindGateway:
		return orNil(s.Gateways.Lookup(r.Name))
	case KindIngress:
		return orNil(s.Ingresses.Lookup(r.Name))
	case KindCertificate:
		return orNil(s.Certificates.Lookup(r.Name))
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

// SlicesOf are the endpoint slices of a service, by name.
func (s *Snapshot) SlicesOf(service Name) []*EndpointSlice { return s.slicesOf.Get(service) }

// SlicesWith are the endpoint slices that name a workload, by name.
func (s *Snapshot) SlicesWith(workload Name) []*EndpointSlice { return s.slicesWith.Get(workload) }

// Members are the workloads of the mesh that serve s, by name. The cost is that of the
// rarest label which s selects, whatever else the namespace holds; for a Sliced service
// that of its endpoints.
func (s *Snapshot) Members(svc *Service) []*Workload {
	if svc.Sliced {
		return s.slicedMembers(svc)
	}
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

func (s *Snapshot) slicedMembers(svc *Service) []*Workload {
	var out []*Workload
	for _, slice := range s.SlicesOf(svc.Name) {
		for _, n := range slice.Workloads() {
			if w, ok := s.Workloads.Lookup(n); ok {
				out = append(out, w)
			}
		}
	}
	slices.SortFunc(out, compareRefs)
	return slices.Compact(out)
}

// Target is the port of w to which a port of svc leads; 0 for none.
func (s *Snapshot) Target(svc *Service, port ServicePort, w *Workload) uint16 {
	if !svc.Sliced {
		return port.Target
	}
	for _, slice := range s.SlicesOf(svc.Name) {
		if !slices.ContainsFunc(slice.Endpoints, func(e Endpoint) bool { return e.Workload == w.Name.Name }) {
			continue
		}
		for _, p := range slice.Ports {
			if p.Name == port.Name {
				return p.Number
			}
		}
	}
	return 0
}

// WorkloadsIn are the workloads of a namespace, by name.
func (s *Snapshot) WorkloadsIn(namespace string) []*Workload {
	return s.workloadsIn.Get(Name{namespace, ""})
}

// Sharing are the workloads of a service account, by name.
func (s *Snapshot) Sharing(account Name) []*Workload { return s.sharing.Get(account) }

// CallersOf are the workloads that name a service as an upstream, by name.
func (s *Snapshot) CallersOf(service Name) []*Workload { return s.callersOf.Get(service) }

// ServicesOf are the services that w serves, by name.
func (s *Snapshot) ServicesOf(w *Workload) []*Service {
	var out []*Service
	for _, k := range workloadKeys(w) {
		for _, svc := range s.selecting.Get(k) {
			if svc.Selects(w.Namespace, w.Labels) {
				out = append(out, svc)
			}
		}
	}
	for _, slice := range s.SlicesWith(w.Name) {
		if svc, ok := s.Services.Lookup(slice.ServiceName()); ok && svc.Sliced {
			out = append(out, svc)
		}
	}
	slices.SortFunc(out, compareRefs)
	return slices.Compact(out)
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

// GatewaysOf are the gateways that serve what names a service or a Secret.
func (s *Snapshot) GatewaysOf(r Ref) []Name {
	by := s.ingressesTo
	if r.Kind == KindCertificate {
		by = s.holdersOf
	}
	var out []Name
	for _, i := range by.Get(r.Name) {
		out = append(out, i.Gateway)
	}
	return distinct(out)
}

// compareAges puts the oldest first.
func compareAges[O Object](a, b O) int {
	return cmp.Or(cmp.Compare(a.Header().Created, b.Header().Created), compareRefs(a, b))
}

func compareRefs[O Object](a, b O) int { return a.Header().Ref.Compare(b.Header().Ref) }
