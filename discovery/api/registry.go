package api

import (
	"context"
	"fmt"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/heddle-mesh/heddle/controlplane/mesh"
	"github.com/heddle-mesh/heddle/discovery/manifest"
	"github.com/heddle-mesh/heddle/discovery/state"
	"github.com/heddle-mesh/heddle/identity/spiffeid"
)

// registry knows which workloads there are and which stream keeps each.
type registry struct {
	config Config
	wake   chan struct{} // a deadline is new; never blocks

	// mu guards entries. It is held while a workload is written, so that the end of a
	// grace period cannot overtake a registration.
	mu      sync.Mutex
	entries map[mesh.Name]*entry
}

// entry is one workload.
type entry struct {
	identity spiffeid.ID
	holder   *registration // the stream that keeps it, or nil
	deadline time.Time     // when it ends, while nobody keeps it; zero before Run
}

func newRegistry(c Config) (*registry, error) {
	r := &registry{config: c, wake: make(chan struct{}, 1), entries: make(map[mesh.Name]*entry)}
	records, err := c.Writer.DB().Records(mesh.KindWorkload)
	if err != nil {
		return nil, err
	}
	decode := Decode(c.Options)
	for _, record := range records {
		e := new(entry)
		if o, err := decode(record.Document); err == nil {
			e.identity = o.(*mesh.Workload).Identity
		} // else it is not served either, and ends with the grace period
		r.entries[record.Ref.Name] = e
	}
	return r, nil
}

// put stores the workload as the registration's. A newer stream of the same identity
// takes a workload over; one of another identity is refused.
func (r *registry) put(by *registration, w *mesh.Workload, document []byte, take bool) (uint64, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	e := r.entries[w.Name]
	switch {
	case e != nil && !e.identity.IsZero() && e.identity != w.Identity:
		return 0, status.Errorf(codes.AlreadyExists, "%s is registered by %s; choose another name", w.Ref, e.identity)
	case !take && (e == nil || e.holder != by):
		return 0, status.Errorf(codes.Aborted, "%s was registered again on another connection", w.Ref)
	}
	written, err := r.config.Writer.Write(state.Batch{Put: []state.Item{{Object: w, Document: document}}})
	if err != nil {
		return 0, statusOf(err)
	}
	r.entries[w.Name] = &entry{identity: w.Identity, holder: by}
	return written.Revision, nil
}

// remove ends a workload at once, if the registration still has it.
func (r *registry) remove(by *registration, name mesh.Name) (uint64, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if e := r.entries[name]; e == nil || e.holder != by {
		return 0, nil
	}
	return r.delete(name)
}

// delete writes the end of workloads; the caller holds mu.
func (r *registry) delete(names ...mesh.Name) (uint64, error) {
	var batch state.Batch
	for _, name := range names {
		batch.Delete = append(batch.Delete, state.Delete{Ref: mesh.Ref{Kind: mesh.KindWorkload, Name: name}})
	}
	written, err := r.config.Writer.Write(batch)
	if err != nil {
		return 0, statusOf(err)
	}
	for _, name := range names {
		delete(r.entries, name)
	}
	return written.Revision, nil
}

// leave begins the grace period, if the registration still has the workload.
func (r *registry) leave(by *registration, name mesh.Name) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if e := r.entries[name]; e != nil && e.holder == by {
		e.holder, e.deadline = nil, time.Now().Add(r.config.Grace)
		select {
		case r.wake <- struct{}{}:
		default:
		}
	}
}

// Run ends workloads whose grace period is over, until ctx ends. It begins the period
// of those that were registered before a restart.
func (s *Server) Run(ctx context.Context) error {
	r := s.registry
	r.begin()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-r.wake:
		case <-timer.C:
		}
		timer.Reset(r.expire(time.Now()))
	}
}

func (r *registry) begin() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, e := range r.entries {
		if e.holder == nil && e.deadline.IsZero() {
			e.deadline = time.Now().Add(r.config.Grace)
		}
	}
}

// expire ends what is due and gives the time until the next is.
func (r *registry) expire(now time.Time) time.Duration {
	const idle = time.Hour
	r.mu.Lock()
	defer r.mu.Unlock()
	var due []mesh.Name
	next := idle
	for name, e := range r.entries {
		switch {
		case e.holder != nil:
		case !now.Before(e.deadline):
			due = append(due, name)
		default:
			next = min(next, e.deadline.Sub(now))
		}
	}
	if len(due) == 0 {
		return next
	}
	if _, err := r.delete(due...); err != nil {
		r.config.Log.Error("remove workloads that are gone", "workloads", fmt.Sprint(due), "error", err)
		return min(next, max(r.config.Grace, time.Second)) // tried again
	}
	r.config.Log.Info("workloads are gone", "workloads", fmt.Sprint(due))
	return next
}

// check reads what would be stored, so that a registration keeps to the rules of
// documents.
func (r *registry) check(w *mesh.Workload) (*mesh.Workload, []byte, error) {
	document, err := manifest.EncodeWorkload(w)
	if err != nil {
		return nil, nil, status.Error(codes.InvalidArgument, err.Error())
	}
	o, err := Decode(r.config.Options)(document)
	if list, ok := err.(manifest.Errors); ok {
		for _, e := range list {
			e.Line = 0 // of a document that the client has not seen
		}
		return nil, nil, Invalid(list)
	}
	if err != nil {
		return nil, nil, status.Error(codes.InvalidArgument, err.Error())
	}
	return o.(*mesh.Workload), document, nil
}
