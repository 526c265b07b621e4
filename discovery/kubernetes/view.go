package kubernetes

import (
	"cmp"
	"net/netip"
	"slices"

	"github.com/heddle-mesh/heddle/controlplane/mesh"
)

// view makes one consistent mesh of what the tables bring. Kinds are watched apart, so
// that one may be behind another; the view holds them together:
//
//   - an endpoint is in the mesh while its pod is known, and is the pod that is meant: else
//     it would be taken, for a moment, for one without a sidecar, and spoken to in the clear;
//   - an address that two pods claim is the newer pod's, whose node gave it out again;
//   - the policies of a namespace that is being deleted stay until it is gone: its pods
//     take longer to end than the policies take to vanish.
//
// It is plain state, and one goroutine's.
type view struct {
	services map[mesh.Name]*mesh.Service
	slices   map[mesh.Name]*slice
	pods     map[mesh.Name]*pod
	zones    map[string]string // by node
	ending   map[string]bool   // namespaces that are being deleted

	ingresses map[mesh.Name]*mesh.Ingress

	naming  index[mesh.Name]  // slices by pods that they name
	on      index[string]     // pods by their node
	holding index[netip.Addr] // pods by their addresses

	kept map[mesh.Ref]bool // policies that are gone, of namespaces that are not

	touched map[mesh.Ref]bool // pods, slices and services to look at again
	changed map[mesh.Ref]mesh.Object
}

func newView() *view {
	return &view{
		services: map[mesh.Name]*mesh.Service{}, slices: map[mesh.Name]*slice{}, pods: map[mesh.Name]*pod{},
		zones: map[string]string{}, ending: map[string]bool{}, ingresses: map[mesh.Name]*mesh.Ingress{},
		naming: index[mesh.Name]{}, on: index[string]{}, holding: index[netip.Addr]{},
		kept: map[mesh.Ref]bool{}, touched: map[mesh.Ref]bool{}, changed: map[mesh.Ref]mesh.Object{},
	}
}

// index lists names under keys.
type index[K comparable] map[K][]mesh.Name

func (x index[K]) add(k K, n mesh.Name) {
	if !slices.Contains(x[k], n) {
		x[k] = append(x[k], n)
	}
}

func (x index[K]) drop(k K, n mesh.Name) {
	rest := slices.DeleteFunc(x[k], func(m mesh.Name) bool { return m == n })
	if len(rest) == 0 {
		delete(x, k)
	} else {
		x[k] = rest
	}
}

func (v *view) touch(kind mesh.Kind, names ...mesh.Name) {
	for _, n := range names {
		v.touched[mesh.Ref{Kind: kind, Name: n}] = true
	}
}

// change passes an object on as it is. What is gone is nil, and no pointer to nothing.
func change[O mesh.Object](v *view, kind mesh.Kind, u update[O]) {
	ref := mesh.Ref{Kind: kind, Name: u.name}
	if u.gone {
		v.changed[ref] = nil
	} else {
		v.changed[ref] = u.value
	}
}

func (v *view) setService(u update[*mesh.Service]) { change(v, mesh.KindService, u) }

func (v *view) setSlice(u update[*slice]) {
	if old := v.slices[u.name]; old != nil {
		for _, n := range old.Workloads() {
			v.naming.drop(n, u.name)
		}
		delete(v.slices, u.name)
	}
	if !u.gone {
		v.slices[u.name] = u.value
		for _, n := range u.value.Workloads() {
			v.naming.add(n, u.name)
		}
	}
	v.touch(mesh.KindEndpointSlice, u.name)
}

func (v *view) setPod(u update[*pod]) {
	old := v.pods[u.name]
	if old != nil {
		v.on.drop(old.Node, u.name)
		for _, a := range old.Addresses {
			v.holding.drop(a, u.name)
			v.touchPods(v.holding[a]...)
		}
		delete(v.pods, u.name)
	}
	if !u.gone {
		v.pods[u.name] = u.value
		if u.value.Node != "" {
			v.on.add(u.value.Node, u.name)
		}
		for _, a := range u.value.Addresses {
			v.touchPods(v.holding[a]...)
			v.holding.add(a, u.name)
		}
	}
	v.touchPods(u.name)
}

// touchPods marks pods and the slices that name them.
func (v *view) touchPods(pods ...mesh.Name) {
	v.touch(mesh.KindWorkload, pods...)
	for _, p := range pods {
		v.touch(mesh.KindEndpointSlice, v.naming[p]...)
	}
}

func (v *view) setZone(u update[string]) {
	node := u.name.Name
	if v.zones[node] = u.value; u.gone {
		delete(v.zones, node)
	}
	v.touch(mesh.KindWorkload, v.on[node]...)
}

func (v *view) setNamespace(u update[bool]) {
	namespace := u.name.Name
	v.ending[namespace] = u.value
	if u.gone {
		delete(v.ending, namespace)
		for ref := range v.kept {
			if ref.Namespace == namespace {
				delete(v.kept, ref)
				v.changed[ref] = nil
			}
		}
	}
}

// setDocument takes a document that can be read, or the end of one.
func (v *view) setDocument(ref mesh.Ref, object mesh.Object) {
	if object == nil && ref.Kind == mesh.KindAuthorizationPolicy && v.ending[ref.Namespace] {
		v.kept[ref] = true
		return
	}
	delete(v.kept, ref)
	v.changed[ref] = object
}

// take gives the objects that may have changed since it was called last; nil: it is gone.
func (v *view) take() map[mesh.Ref]mesh.Object {
	for ref := range v.touched {
		var object mesh.Object
		if ref.Kind == mesh.KindWorkload {
			if w := v.workload(ref.Name); w != nil {
				object = w
			}
		} else if s := v.endpoints(ref.Name); s != nil {
			object = s
		}
		v.changed[ref] = object
	}
	out := v.changed
	v.touched, v.changed = map[mesh.Ref]bool{}, map[mesh.Ref]mesh.Object{}
	return out
}

// workload is what a pod is in the mesh, or nil.
func (v *view) workload(n mesh.Name) *mesh.Workload {
	p := v.pods[n]
	if p == nil || p.workload == nil {
		return nil
	}
	own := slices.DeleteFunc(slices.Clone(p.workload.Addresses), func(a netip.Addr) bool { return v.holder(a) != n })
	if len(own) == 0 {
		return nil
	}
	return p.place(v.zones[p.Node], own)
}

// holder is the pod whose address a is: of those that claim it the newest that is not ending.
func (v *view) holder(a netip.Addr) mesh.Name {
	return slices.MaxFunc(v.holding[a], func(a, b mesh.Name) int {
		x, y := v.pods[a], v.pods[b]
		switch {
		case x.ending && !y.ending:
			return -1
		case y.ending && !x.ending:
			return 1
		}
		return cmp.Or(cmp.Compare(x.created, y.created), a.Compare(b))
	})
}

// endpoints is a slice with those of its endpoints that are in the mesh, or nil.
func (v *view) endpoints(n mesh.Name) *mesh.EndpointSlice {
	s := v.slices[n]
	if s == nil {
		return nil
	}
	var in []mesh.Endpoint
	for i, e := range s.Endpoints {
		if v.in(n.Namespace, e, s.uids[i]) {
			in = append(in, e)
		}
	}
	if len(in) == len(s.Endpoints) {
		return s.EndpointSlice
	}
	out := *s.EndpointSlice
	out.Endpoints = in
	return &out
}

// in reports whether an endpoint is in the mesh, see view.
func (v *view) in(namespace string, e mesh.Endpoint, uid string) bool {
	if e.Workload == "" {
		return true
	}
	n := mesh.Name{Namespace: namespace, Name: e.Workload}
	p := v.pods[n]
	if p == nil || p.ended || uid != "" && uid != p.UID {
		return false
	}
	at := e.Addresses[0]
	if p.Injected { // an address that is not its workload's is an earlier one, or one that no proxy captures
		return p.workload != nil && slices.Contains(p.workload.Addresses, at) && v.holder(at) == n
	}
	// An address that is not its own is that of its node, or of another network it is in.
	return !slices.Contains(p.Addresses, at) || v.holder(at) == n
}
