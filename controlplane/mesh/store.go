package mesh

import (
	"fmt"
	"reflect"
	"slices"
	"sync"
	"sync/atomic"
)

// Store holds the newest Snapshot. Writers are serialised; readers never wait.
type Store struct {
	writing sync.Mutex // held while a new snapshot is made
	current atomic.Pointer[Snapshot]
}

// NewStore gives a store whose snapshot is empty but for the given settings.
func NewStore(config *MeshConfig) *Store {
	s := new(Store)
	s.current.Store(&Snapshot{Config: config})
	return s
}

// Snapshot gives the newest snapshot.
func (s *Store) Snapshot() *Snapshot { return s.current.Load() }

// Apply makes a snapshot with all of the changes, or none of them where one is
// malformed. It gives the snapshots before and after and the changes that did change
// something; where none did, before and after are the same. The new snapshot takes the
// place of the old one when use, if there is any, has returned nil; an error of use is
// Apply's, and leaves the store as it was.
func (s *Store) Apply(changes []Change, use func(before, after *Snapshot, effective []Change) error) error {
	s.writing.Lock()
	defer s.writing.Unlock()
	before := s.current.Load()
	next := *before
	var effective []Change
	for _, c := range changes {
		if c.Object != nil && c.Object.Header().Ref != c.Ref {
			return fmt.Errorf("change of %s carries %s", c.Ref, c.Object.Header().Ref)
		}
		old := next.Get(c.Ref)
		if same(old, c.Object) {
			continue
		}
		if err := next.apply(c, old); err != nil {
			return err
		}
		effective = append(effective, c)
	}
	after := before
	if len(effective) > 0 {
		next.Revision++
		after = &next
	}
	if use != nil {
		if err := use(before, after, effective); err != nil {
			return err
		}
	}
	s.current.Store(after)
	return nil
}

// same reports whether the two objects are equal but for their generation.
func same(a, b Object) bool {
	if a == nil || b == nil {
		return a == nil && b == nil
	}
	if a == b {
		return true
	}
	return reflect.DeepEqual(a, b)
}

// apply puts one change into a snapshot that is not published yet.
func (s *Snapshot) apply(c Change, old Object) error {
	switch c.Ref.Kind {
	case KindService:
		oldV, newV := as[*Service](old), as[*Service](c.Object)
		s.Services = put(s.Services, c.Ref.Name, newV)
		s.selecting = reindex(s.selecting, oldV, newV, compareRefs, firstSelectorKey)
	case KindEndpointSlice:
		oldV, newV := as[*EndpointSlice](old), as[*EndpointSlice](c.Object)
		s.Slices = put(s.Slices, c.Ref.Name, newV)
		s.slicesOf = reindex(s.slicesOf, oldV, newV, compareRefs, func(e *EndpointSlice) []Name { return []Name{e.ServiceName()} })
		s.slicesWith = reindex(s.slicesWith, oldV, newV, compareRefs, (*EndpointSlice).Workloads)
	case KindWorkload:
		oldV, newV := as[*Workload](old), as[*Workload](c.Object)
		s.Workloads = put(s.Workloads, c.Ref.Name, newV)
		s.labelled = reindex(s.labelled, oldV, newV, compareRefs, workloadKeys)
		s.workloadsIn = reindex(s.workloadsIn, oldV, newV, compareRefs, byNamespace[*Workload])
		s.callersOf = reindex(s.callersOf, oldV, newV, compareRefs, upstreamServices)
		s.sharing = reindex(s.sharing, oldV, newV, compareRefs, func(w *Workload) []Name { return []Name{w.Account()} })
	case KindHTTPRoute:
		s.HTTPRoutes = put(s.HTTPRoutes, c.Ref.Name, as[*Route](c.Object))
		s.indexRoute(as[*Route](old), as[*Route](c.Object))
	case KindGRPCRoute:
		s.GRPCRoutes = put(s.GRPCRoutes, c.Ref.Name, as[*Route](c.Object))
		s.indexRoute(as[*Route](old), as[*Route](c.Object))
	case KindAuthorizationPolicy:
		oldV, newV := as[*AuthorizationPolicy](old), as[*AuthorizationPolicy](c.Object)
		s.Policies = put(s.Policies, c.Ref.Name, newV)
		s.policiesIn = reindex(s.policiesIn, oldV, newV, compareRefs, byNamespace[*AuthorizationPolicy])
	case KindGateway, KindIngress, KindCertificate:
		s.applyEdge(c, old)
	case KindMeshConfig:
		config := as[*MeshConfig](c.Object)
		if config == nil {
			config = DefaultMeshConfig()
			config.TrustDomain, config.ClusterDomain = s.Config.TrustDomain, s.Config.ClusterDomain
		}
		s.Config = config
	default:
		return fmt.Errorf("%s: the mesh has no kind %q", c.Ref, c.Ref.Kind)
	}
	return nil
}

func (s *Snapshot) indexRoute(old, new *Route) {
	s.routesOf = reindex(s.routesOf, old, new, compareAges, (*Route).ParentServices)
	s.usersOf = reindex(s.usersOf, old, new, compareAges, (*Route).BackendServices)
}

// as gives o as a V, or V's nil where o is nil.
func as[V Object](o Object) V {
	v, _ := o.(V)
	return v
}

func put[V interface {
	comparable
	Object
}](t Table[V], n Name, v V) Table[V] {
	var none V
	if v == none {
		return t.without(n)
	}
	return t.with(n, v)
}

func byNamespace[V Object](v V) []Name { return []Name{{v.Header().Namespace, ""}} }

// labelKeys are where the indices keep what has to do with labels in a namespace. A
// label's key holds no "=", so no two labels share one.
func labelKeys(namespace string, labels map[string]string) []Name {
	var out []Name
	for k, v := range labels {
		out = append(out, Name{namespace, k + "=" + v})
	}
	return out
}

func workloadKeys(w *Workload) []Name { return labelKeys(w.Namespace, w.Labels) }

// upstreamServices are the services of a workload's upstreams, each once.
func upstreamServices(w *Workload) []Name {
	var out []Name
	for _, u := range w.Upstreams {
		if !slices.Contains(out, u.Service) {
			out = append(out, u.Service)
		}
	}
	return out
}

func selectorKeys(s *Service) []Name { return labelKeys(s.Namespace, s.Selector) }

// firstSelectorKey is one of the labels that a workload must have for s to select it, the
// first in order: under one key, a service is found once.
func firstSelectorKey(s *Service) []Name {
	keys := selectorKeys(s)
	if len(keys) == 0 || s.Sliced { // it selects nobody
		return nil
	}
	return []Name{slices.MinFunc(keys, Name.Compare)}
}

// reindex takes old out of the lists of t that keys names for it and puts new in, in
// order. Lists are replaced, never edited: older snapshots share them.
func reindex[V comparable](t Table[[]V], old, new V, order func(a, b V) int, keys func(V) []Name) Table[[]V] {
	var none V
	var had, has []Name
	if old != none {
		had = keys(old)
	}
	if new != none {
		has = keys(new)
	}
	for _, k := range had {
		if slices.Contains(has, k) && order(old, new) == 0 {
			continue // replaced below, where it stands
		}
		list := t.Get(k)
		i := slices.Index(list, old)
		if len(list) == 1 {
			t = t.without(k)
		} else {
			t = t.with(k, slices.Concat(list[:i], list[i+1:]))
		}
	}
	for _, k := range has {
		list := t.Get(k)
		i, found := slices.BinarySearchFunc(list, new, order)
		rest := list[i:]
		if found {
			rest = rest[1:]
		}
		t = t.with(k, slices.Concat(list[:i], []V{new}, rest))
	}
	return t
}

// ParentServices are the services the route attaches to, each once.
func (r *Route) ParentServices() []Name {
	var out []Name
	for _, p := range r.Parents {
		out = append(out, p.Service)
	}
	return distinct(out)
}

// BackendServices are the services the route sends or mirrors to, each once.
func (r *Route) BackendServices() []Name {
	var out []Name
	for _, b := range r.Backends() {
		out = append(out, b.Service)
	}
	return distinct(out)
}

// Backends are all destinations that the route names, mirrors among them.
func (r *Route) Backends() []Backend {
	var out []Backend
	for _, rule := range r.Rules {
		filters := slices.Clone(rule.Filters)
		for _, b := range rule.Backends {
			out = append(out, b)
			filters = append(filters, b.Filters...)
		}
		for _, f := range filters {
			if f.Mirror != nil {
				out = append(out, f.Mirror.Backend)
			}
		}
	}
	return out
}

func distinct(names []Name) []Name {
	slices.SortFunc(names, Name.Compare)
	return slices.Compact(names)
}
