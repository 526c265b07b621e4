package kubernetes

import (
	"sync"

	"k8s.io/client-go/tools/cache"

	"github.com/heddle-mesh/heddle/controlplane/mesh"
)

// table is the store that a reflector writes to: what is kept of each object of a kind,
// and which of it nobody has taken yet. Writing what is there already changes nothing, so
// that a new list after a lost watch is as good as the watch.
type table[V any] struct {
	resource *resource
	same     func(a, b V) bool
	changed  func() // called after a change; does not wait

	mu      sync.Mutex // guards what follows
	values  map[mesh.Name]V
	touched map[mesh.Name]bool
	moved   chan struct{} // closed at the next change; nil while nobody waits
	filled  sync.Once
	full    chan struct{} // closed when the first list is in
}

func newTable[V any](r *resource, same func(a, b V) bool, changed func()) *table[V] {
	return &table[V]{
		resource: r, same: same, changed: changed,
		values: map[mesh.Name]V{}, touched: map[mesh.Name]bool{}, full: make(chan struct{}),
	}
}

var _ cache.TransformingStore = (*table[int])(nil)

// Transformer implements cache.TransformingStore: while a reflector collects the first
// list, it keeps what we keep.
func (t *table[V]) Transformer() cache.TransformFunc { return t.resource.keep }

// Add implements cache.ReflectorStore.
func (t *table[V]) Add(obj any) error { return t.Update(obj) }

// Update implements cache.ReflectorStore.
func (t *table[V]) Update(obj any) error {
	kept, err := t.resource.keep(obj)
	if err != nil {
		return err
	}
	t.change(func() { t.set(kept.(*item)) })
	return nil
}

// Delete implements cache.ReflectorStore.
func (t *table[V]) Delete(obj any) error {
	kept, err := t.resource.keep(obj)
	if err != nil {
		return err
	}
	t.change(func() { t.drop(kept.(*item).name()) })
	return nil
}

// Replace implements cache.ReflectorStore: it is called with all that there is, the first
// time and when a watch could not go on where it ended.
func (t *table[V]) Replace(list []any, _ string) error {
	items := make([]*item, len(list))
	for i, obj := range list {
		kept, err := t.resource.keep(obj)
		if err != nil {
			return err
		}
		items[i] = kept.(*item)
	}
	t.change(func() {
		there := make(map[mesh.Name]bool, len(items))
		for _, i := range items {
			there[i.name()] = true
			t.set(i)
		}
		for n := range t.values {
			if !there[n] {
				t.drop(n)
			}
		}
	})
	t.fill()
	return nil
}

// Resync implements cache.ReflectorStore. State, not events, is what we hand on.
func (t *table[V]) Resync() error { return nil }

// fill says that there is no more to wait for.
func (t *table[V]) fill() { t.filled.Do(func() { close(t.full) }) }

func (i *item) name() mesh.Name { return mesh.Name{Namespace: i.Namespace, Name: i.Name} }

// change runs a change and tells those who wait for one.
func (t *table[V]) change(do func()) {
	t.mu.Lock()
	before := len(t.touched)
	do()
	some := len(t.touched) > 0 || before > 0
	if t.moved != nil {
		close(t.moved)
		t.moved = nil
	}
	t.mu.Unlock()
	if some {
		t.changed()
	}
}

// set keeps an item's value. t.mu is held.
func (t *table[V]) set(i *item) {
	n := i.name()
	next, ok := i.value.(V)
	if !ok { // nothing of it is kept
		t.drop(n)
		return
	}
	if old, had := t.values[n]; had && t.same(old, next) {
		return
	}
	t.values[n] = next
	t.touched[n] = true
}

// drop forgets a name. t.mu is held.
func (t *table[V]) drop(n mesh.Name) {
	if _, had := t.values[n]; had {
		delete(t.values, n)
		t.touched[n] = true
	}
}

// update is the newest value of a name, or that there is none.
type update[V any] struct {
	name  mesh.Name
	value V
	gone  bool
}

// take gives the newest value of all names that have changed since it was called last.
func (t *table[V]) take() []update[V] {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.touched) == 0 {
		return nil
	}
	out := make([]update[V], 0, len(t.touched))
	for n := range t.touched {
		v, ok := t.values[n]
		out = append(out, update[V]{n, v, !ok})
	}
	t.touched = map[mesh.Name]bool{}
	return out
}

// lookup gives a value, and where there is none, a channel that is closed at the next change.
func (t *table[V]) lookup(n mesh.Name) (v V, ok bool, changed <-chan struct{}) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.moved == nil {
		t.moved = make(chan struct{})
	}
	v, ok = t.values[n]
	return v, ok, t.moved
}
