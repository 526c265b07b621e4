package controlplane

import (
	"cmp"
	"net/netip"
	"slices"

	"github.com/heddle-mesh/heddle/controlplane/mesh"
	"github.com/heddle-mesh/heddle/controlplane/xds"
)

// trace is what became of one object.
type trace struct {
	keys map[xds.Key]struct{} // resources that have it among their origins
	// revision is the newest at which one of its resources changed or went.
	revision uint64
}

// Trace is what became of one object.
type Trace struct {
	// Keys are the resources that have the object among their origins, in order.
	Keys []xds.Key
	// Revision is the cache's revision at which one of them changed last; a proxy that
	// has settled it has the object as it is now, but for what it refused.
	Revision uint64
}

// Cache is where the resources go.
func (p *Pipeline) Cache() *xds.Cache { return p.cache }

// Prefixes are the ranges of the mesh's own addresses.
func (p *Pipeline) Prefixes() []netip.Prefix { return slices.Clone(p.prefixes) }

// Trace finds what became of an object: which resources were made from it, and when they
// changed last.
func (p *Pipeline) Trace(ref mesh.Ref) Trace {
	p.making.Lock()
	defer p.making.Unlock()
	t := p.traces[ref]
	if t == nil {
		return Trace{}
	}
	out := Trace{Revision: t.revision, Keys: make([]xds.Key, 0, len(t.keys))}
	for k := range t.keys {
		out.Keys = append(out.Keys, k)
	}
	slices.SortFunc(out.Keys, func(a, b xds.Key) int {
		return cmp.Or(cmp.Compare(a.Type, b.Type), cmp.Compare(a.Name, b.Name), cmp.Compare(a.Variant, b.Variant))
	})
	return out
}

// ChangedAt is the revision that brought the newest content of a resource; 0 if there
// is no such resource.
func (p *Pipeline) ChangedAt(key xds.Key) uint64 {
	p.making.Lock()
	defer p.making.Unlock()
	return p.made[key].revision
}

// index keeps the traces when a resource's origins change. Callers hold making.
func (p *Pipeline) index(key xds.Key, before, after []xds.Origin) {
	for _, o := range before {
		ref := refOf(o)
		if t := p.traces[ref]; t != nil {
			delete(t.keys, key)
		}
	}
	for _, o := range after {
		ref := refOf(o)
		if p.traces[ref] == nil {
			p.traces[ref] = &trace{keys: map[xds.Key]struct{}{}}
		}
		p.traces[ref].keys[key] = struct{}{}
	}
}

// stamp notes the revision that holds what was made, and forgets objects that no
// resource comes from any more. Lost are the origins that resources had and have no
// more. Callers hold making.
func (p *Pipeline) stamp(set []*xds.Resource, lost []xds.Origin, revision uint64) {
	for _, r := range set {
		if m := p.made[r.Key]; m.revision == 0 { // else only its origins are new
			m.revision = revision
			p.made[r.Key] = m
		}
		for _, o := range r.Origins {
			p.traces[refOf(o)].revision = revision
		}
	}
	for _, o := range lost {
		t := p.traces[refOf(o)]
		switch {
		case t == nil:
		case len(t.keys) == 0:
			delete(p.traces, refOf(o))
		default:
			t.revision = revision
		}
	}
}

func refOf(o xds.Origin) mesh.Ref {
	return mesh.Ref{Kind: mesh.Kind(o.Kind), Name: mesh.Name{Namespace: o.Namespace, Name: o.Name}}
}
