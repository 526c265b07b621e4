// Package controlplane is the road of a change, from an object to the proxies that use
// it: sources submit changes, the mesh makes a snapshot of them, what they touch is
// translated again, and the resources that came out different go to the xDS cache,
// where every proxy's stream finds them.
//
//	Submit -> mesh.Store -> affected -> translate -> xds.Cache
//
// Nothing calls back up. What comes back from the proxies (ACKs and refusals) is read
// from the xDS server when somebody asks for an object's status.
package controlplane

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"

	"google.golang.org/protobuf/proto"

	"github.com/heddle-mesh/heddle/controlplane/mesh"
	"github.com/heddle-mesh/heddle/controlplane/xds"
)

// Pipeline turns changes of objects into resources in an xDS cache.
type Pipeline struct {
	store *mesh.Store
	cache *xds.Cache
	// prefixes are the mesh's own addresses.
	prefixes []netip.Prefix

	making sync.Mutex // held while changes become resources; guards what follows
	made   map[xds.Key]made
	owned  map[mesh.Ref][]xds.Key
	// kept are the derived values of an owner that translators compare by pointer.
	kept map[keptKey]any
	// traces say which resources an object is in, see provenance.go.
	traces map[mesh.Ref]*trace
}

// made is a resource and the input that it was made of.
type made struct {
	in       any // comparable
	origins  []xds.Origin
	resource *xds.Resource
	revision uint64 // that brought this content; 0 until it is in the cache
}

type keptKey struct {
	owner mesh.Ref
	what  string
	port  uint16
}

// NewPipeline gives a pipeline over an empty mesh, with the resources that every proxy
// needs in its cache. Prefixes are the ranges of the mesh's own addresses.
func NewPipeline(config *mesh.MeshConfig, cache *xds.Cache, prefixes ...netip.Prefix) (*Pipeline, error) {
	p := &Pipeline{
		store:    mesh.NewStore(config),
		cache:    cache,
		prefixes: slices.Clone(prefixes),
		made:     map[xds.Key]made{},
		owned:    map[mesh.Ref][]xds.Key{},
		kept:     map[keptKey]any{},
		traces:   map[mesh.Ref]*trace{},
	}
	snapshot := p.store.Snapshot()
	if _, err := p.remake(snapshot, everything(snapshot)); err != nil {
		return nil, err
	}
	return p, nil
}

// Snapshot gives the mesh as it is now.
func (p *Pipeline) Snapshot() *mesh.Snapshot { return p.store.Snapshot() }

// Submit applies changes, all or none, and gives the cache's revision that holds them.
// The error names an object that could not be applied or translated; nothing has changed
// then.
func (p *Pipeline) Submit(changes []mesh.Change) (revision uint64, err error) {
	p.making.Lock()
	defer p.making.Unlock()
	err = p.store.Apply(changes, func(before, after *mesh.Snapshot, effective []mesh.Change) error {
		if len(effective) == 0 {
			revision = p.cache.Revision()
			return nil
		}
		owners := affected(before, after, effective)
		next, err := p.remake(after, owners)
		if err != nil { // some of it is made; make it again as it was
			_, again := p.remake(before, owners)
			return errors.Join(err, again)
		}
		revision = next
		return nil
	})
	if err != nil {
		return 0, fmt.Errorf("apply: %w", err)
	}
	return revision, nil
}

// remake translates what the owners own, and updates the cache in one step.
func (p *Pipeline) remake(s *mesh.Snapshot, owners []mesh.Ref) (uint64, error) {
	b := &build{pipeline: p, snapshot: s, wanted: map[xds.Key]bool{}}
	for _, owner := range owners {
		b.owner = owner
		b.keys, b.groups = nil, nil
		switch object := s.Get(owner).(type) {
		case *mesh.Service:
			b.service(object)
		case *mesh.Workload:
			b.workload(object)
		case *mesh.Gateway:
			b.gateway(object)
		case *mesh.MeshConfig:
			b.global()
		}
		if owner.Kind == kindAccount {
			b.account(owner.Name)
		}
		b.settle()
	}
	if b.err != nil {
		return 0, b.err
	}
	revision := p.cache.Update(b.set, b.removed())
	p.stamp(b.set, b.lost, revision)
	return revision, nil
}

// build collects the resources of some owners.
type build struct {
	pipeline *Pipeline
	snapshot *mesh.Snapshot
	owner    mesh.Ref
	keys     []xds.Key // of the owner
	groups   []string  // of what a proxy is to get by them and is wanted next

	set    []*xds.Resource
	remove []xds.Key
	wanted map[xds.Key]bool // by any owner of this build
	lost   []xds.Origin     // that resources had, and have no more
	err    error
}

// want says that the owner's resources hold one more. It is made only if its input is
// not the one it was made of last time.
func want[In comparable, M proto.Message](b *build, key xds.Key, in In, translator func(In) M, origins []mesh.Object, needs ...xds.Key) {
	if b.wanted[key] { // two owners: the first one, they come in a fixed order
		return
	}
	b.wanted[key] = true
	b.keys = append(b.keys, key)
	from := provenance(origins)
	last, ok := b.pipeline.made[key]
	if ok && last.in == any(in) && slices.Equal(last.origins, from) && slices.Equal(last.resource.Groups, b.groups) {
		return
	}
	r, err := resource(key, func() proto.Message { return translator(in) }, from, needs)
	if err != nil {
		b.err = fmt.Errorf("translate %s: %w", b.owner, err)
		return
	}
	r.Groups = b.groups
	next := made{in: in, origins: from, resource: r}
	if ok && last.resource.Version == r.Version {
		next.revision = last.revision
	}
	b.pipeline.made[key] = next
	b.pipeline.index(key, last.origins, from)
	b.lost = append(b.lost, last.origins...)
	b.set = append(b.set, r)
}

// resource makes a resource of what translate returns. A translator that panics, as on text
// that is not UTF-8, must not take the mesh down for one object.
func resource(key xds.Key, translate func() proto.Message, from []xds.Origin, needs []xds.Key) (r *xds.Resource, err error) {
	defer func() {
		if cause := recover(); cause != nil {
			err = fmt.Errorf("make %s: %v", key, cause)
		}
	}()
	return xds.NewResource(key, translate(), from, needs...)
}

func provenance(objects []mesh.Object) []xds.Origin {
	var out []xds.Origin
	for _, o := range objects {
		m := o.Header()
		out = append(out, xds.Origin{Kind: string(m.Kind), Namespace: m.Namespace, Name: m.Name.Name, Generation: m.Generation})
	}
	return out
}

// settle ends the work on one owner: what it had and wants no more is removed.
func (b *build) settle() {
	had := b.pipeline.owned[b.owner]
	for _, key := range had {
		if !slices.Contains(b.keys, key) {
			b.remove = append(b.remove, key)
		}
	}
	if len(b.keys) == 0 {
		delete(b.pipeline.owned, b.owner)
		for k := range b.pipeline.kept {
			if k.owner == b.owner {
				delete(b.pipeline.kept, k)
			}
		}
		return
	}
	b.pipeline.owned[b.owner] = b.keys
}

// removed lists what no owner of this build wants.
func (b *build) removed() []xds.Key {
	gone := slices.DeleteFunc(b.remove, func(k xds.Key) bool { return b.wanted[k] })
	for _, k := range gone {
		b.pipeline.index(k, b.pipeline.made[k].origins, nil)
		b.lost = append(b.lost, b.pipeline.made[k].origins...)
		delete(b.pipeline.made, k)
	}
	return gone
}

// keep gives the value that b's owner had under a name if v equals it, so that pointers
// stay as long as values do.
func keep[V any](b *build, what string, port uint16, v *V, equal func(a, b *V) bool) *V {
	k := keptKey{b.owner, what, port}
	if old, ok := b.pipeline.kept[k].(*V); ok && equal(old, v) {
		return old
	}
	b.pipeline.kept[k] = v
	return v
}
