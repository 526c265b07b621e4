package kubernetes

import (
	"maps"
	"sync"

	"github.com/heddle-mesh/heddle/controlplane/mesh"
)

// Rejection is why an object is not in force as it is. The mesh goes on with its last good
// value, if there was one.
type Rejection struct {
	Generation int64 // of the object; 0 where its end was refused
	Err        error
}

// rejections is what is rejected now.
type rejections struct {
	mu      sync.Mutex // guards what follows
	all     map[mesh.Ref]Rejection
	changed chan struct{} // closed at the next change
}

func newRejections() *rejections {
	return &rejections{all: map[mesh.Ref]Rejection{}, changed: make(chan struct{})}
}

// set notes a rejection, and reports whether it is new.
func (r *rejections) set(ref mesh.Ref, why Rejection) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	old, had := r.all[ref]
	if had && old.Generation == why.Generation && old.Err.Error() == why.Err.Error() {
		return false
	}
	r.all[ref] = why
	r.tell()
	return true
}

func (r *rejections) clear(ref mesh.Ref) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, had := r.all[ref]; had {
		delete(r.all, ref)
		r.tell()
	}
}

// tell wakes those who wait for a change. r.mu is held.
func (r *rejections) tell() {
	close(r.changed)
	r.changed = make(chan struct{})
}

// Rejected gives the objects that are not in force as they are, and a channel that is
// closed when that changes.
func (s *Source) Rejected() (map[mesh.Ref]Rejection, <-chan struct{}) {
	s.rejected.mu.Lock()
	defer s.rejected.mu.Unlock()
	return maps.Clone(s.rejected.all), s.rejected.changed
}
