package xds

import (
	"iter"
	"slices"
	"sync"
)

// minTombstones is how many removed keys the change log remembers at least; beyond
// that it remembers as many as there are live resources. A stream that is further
// behind compares everything once instead. This bounds the cache under endless churn.
const minTombstones = 1024

// Cache holds the newest version of every resource and the order in which they
// changed. It is safe for concurrent use.
//
// The change log is compacted: each key stands in it once, at the revision of its
// newest change, so "what changed since revision R" costs only what it returns.
type Cache struct {
	changed broadcast

	mu         sync.RWMutex // guards what follows
	revision   uint64
	entries    map[Key]*entry
	names      map[string]map[string]named    // type -> name -> what is live
	groups     map[string]map[*entry]struct{} // what is live of each
	oldest     *entry                         // ends of the change log
	newest     *entry
	live       int
	tombstones []tombstone // in order of revision; some may have come alive again
	dead       int         // entries without a resource
	floor      uint64      // removals up to here may be forgotten
}

// entry is a key's place in the change log; without a resource it is a tombstone.
type entry struct {
	key        Key
	resource   *Resource
	revision   uint64
	prev, next *entry
}

// named are the live entries of one type and name: the one for everybody, and those of
// variants, of which most names have none.
type named struct {
	all *entry
	of  map[string]*entry
}

type tombstone struct {
	entry    *entry
	revision uint64
}

// NewCache returns an empty cache at revision 0.
func NewCache() *Cache {
	return &Cache{entries: make(map[Key]*entry), names: make(map[string]map[string]named), groups: make(map[string]map[*entry]struct{})}
}

// Update sets and removes resources in one step that no stream sees half of, and
// returns the revision at which all of it holds. What is the same as before, its groups
// too, is no change (new origins are taken over silently); if nothing changed, the
// revision stays. A key in both lists is set.
func (c *Cache) Update(set []*Resource, remove []Key) uint64 {
	c.mu.Lock()
	before := c.revision
	next := c.revision + 1
	keep := make(map[Key]bool, min(len(set), len(remove)))
	if len(remove) > 0 {
		for _, r := range set {
			keep[r.Key] = true
		}
	}
	for _, k := range remove {
		if e := c.entries[k]; e != nil && e.resource != nil && !keep[k] {
			c.bury(e, next)
		}
	}
	for _, r := range set {
		c.set(r, next)
	}
	c.forget()
	after := c.revision
	c.mu.Unlock()
	if after != before {
		c.changed.fire()
	}
	return after
}

func (c *Cache) set(r *Resource, revision uint64) {
	e := c.entries[r.Key]
	if e == nil {
		e = &entry{key: r.Key}
		c.entries[r.Key] = e
	} else if e.resource != nil && e.resource.Version == r.Version && slices.Equal(e.resource.Groups, r.Groups) {
		if !slices.Equal(e.resource.Origins, r.Origins) || !slices.Equal(e.resource.Needs, r.Needs) {
			e.resource = r
		}
		return
	} else {
		c.unlink(e)
		if e.resource == nil {
			c.dead--
		}
	}
	if e.resource == nil {
		c.live++
		c.enlist(e)
	} else {
		c.ungroup(e)
	}
	e.resource = r
	c.group(e)
	c.append(e, revision)
}

// group makes an entry known by the groups of its resource.
func (c *Cache) group(e *entry) {
	for _, g := range e.resource.Groups {
		if c.groups[g] == nil {
			c.groups[g] = make(map[*entry]struct{})
		}
		c.groups[g][e] = struct{}{}
	}
}

// ungroup undoes group.
func (c *Cache) ungroup(e *entry) {
	for _, g := range e.resource.Groups {
		if delete(c.groups[g], e); len(c.groups[g]) == 0 {
			delete(c.groups, g)
		}
	}
}

func (c *Cache) bury(e *entry, revision uint64) {
	c.ungroup(e)
	e.resource = nil
	c.live--
	c.dead++
	c.delist(e)
	c.unlink(e)
	c.append(e, revision)
	c.tombstones = append(c.tombstones, tombstone{e, revision})
}

// enlist makes an entry known by its name.
func (c *Cache) enlist(e *entry) {
	names := c.names[e.key.Type]
	if names == nil {
		names = make(map[string]named)
		c.names[e.key.Type] = names
	}
	n := names[e.key.Name]
	if e.key.Variant == "" {
		n.all = e
	} else {
		if n.of == nil {
			n.of = make(map[string]*entry, 1)
		}
		n.of[e.key.Variant] = e
	}
	names[e.key.Name] = n
}

// delist undoes enlist.
func (c *Cache) delist(e *entry) {
	names := c.names[e.key.Type]
	n := names[e.key.Name]
	if e.key.Variant == "" {
		n.all = nil
	} else {
		delete(n.of, e.key.Variant)
	}
	names[e.key.Name] = n
	if n.all == nil && len(n.of) == 0 {
		delete(names, e.key.Name)
	}
}

// forget drops the oldest tombstones beyond the limit.
func (c *Cache) forget() {
	if len(c.tombstones) > 2*c.dead+minTombstones { // mostly keys that came back
		c.tombstones = slices.DeleteFunc(c.tombstones, tombstone.stale)
	}
	limit := max(minTombstones, c.live)
	for len(c.tombstones) > 0 && (c.dead > limit || c.tombstones[0].stale()) {
		t := c.tombstones[0]
		c.tombstones = c.tombstones[1:]
		if t.stale() {
			continue
		}
		c.unlink(t.entry)
		delete(c.entries, t.entry.key)
		c.dead--
		c.floor = t.revision
	}
}

// stale tells that the key has changed again since.
func (t tombstone) stale() bool {
	return t.entry.resource != nil || t.entry.revision != t.revision
}

func (c *Cache) append(e *entry, revision uint64) {
	c.revision, e.revision = revision, revision
	e.prev, e.next = c.newest, nil
	if c.newest != nil {
		c.newest.next = e
	} else {
		c.oldest = e
	}
	c.newest = e
}

func (c *Cache) unlink(e *entry) {
	if e.prev != nil {
		e.prev.next = e.next
	} else {
		c.oldest = e.next
	}
	if e.next != nil {
		e.next.prev = e.prev
	} else {
		c.newest = e.prev
	}
}

// Get returns the resource under the key, or nil.
func (c *Cache) Get(k Key) *Resource {
	c.mu.RLock()
	defer c.mu.RUnlock()
	if e := c.entries[k]; e != nil {
		return e.resource
	}
	return nil
}

// Revision is the number of the newest change; 0 for a cache never filled.
func (c *Cache) Revision() uint64 {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.revision
}

// Changed returns a channel that is closed at the next change.
func (c *Cache) Changed() <-chan struct{} { return c.changed.wait() }

// Len is the number of resources.
func (c *Cache) Len() int {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.live
}

// All yields the resources as they were at one revision, oldest change first. The loop
// may use the cache.
func (c *Cache) All() iter.Seq[*Resource] {
	c.mu.RLock()
	all := make([]*Resource, 0, c.live)
	for e := c.oldest; e != nil; e = e.next {
		if e.resource != nil {
			all = append(all, e.resource)
		}
	}
	c.mu.RUnlock()
	return slices.Values(all)
}

// since yields the entries changed after the revision, newest first. Callers hold mu.
func (c *Cache) since(revision uint64) iter.Seq[*entry] {
	return func(yield func(*entry) bool) {
		for e := c.newest; e != nil && e.revision > revision; e = e.prev {
			if !yield(e) {
				return
			}
		}
	}
}

// lookup finds what a proxy with these variants gets for a name, or nil. Callers hold mu.
func (c *Cache) lookup(typ, name string, variants []string) *entry {
	n := c.names[typ][name]
	if len(n.of) > 0 {
		for _, v := range variants {
			if e := n.of[v]; e != nil {
				return e
			}
		}
	}
	return n.all
}

// Lookup returns the resource that a proxy with these variants gets for a name: of the
// first variant that has one, else the one for everybody, else nil.
func (c *Cache) Lookup(typ, name string, variants ...string) *Resource {
	c.mu.RLock()
	defer c.mu.RUnlock()
	if e := c.lookup(typ, name, variants); e != nil {
		return e.resource
	}
	return nil
}
