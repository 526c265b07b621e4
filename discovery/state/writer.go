package state

import (
	"fmt"
	"path/filepath"
	"sync"

	"github.com/heddle-mesh/heddle/controlplane/mesh"
)

// Submit hands changes on to the mesh. It gives the revision that holds them and what
// is doubtful about an object though it is valid.
type Submit func(changes []mesh.Change) (revision uint64, warnings map[mesh.Ref][]string, err error)

// Writer is the one way in for every source: a batch is stored, then submitted, and the
// next waits for both.
type Writer struct {
	db     *DB
	submit Submit

	mu sync.Mutex // held while a batch is written
}

// NewWriter makes the writer of db. There must be one only.
func NewWriter(db *DB, submit Submit) *Writer { return &Writer{db: db, submit: submit} }

// DB is what the writer stores in.
func (w *Writer) DB() *DB { return w.db }

// Item is an object on its way in: its value, which nobody else holds yet, and its
// canonical document.
type Item struct {
	Object   mesh.Object
	Document []byte
	File     string // "" = the API
}

// Batch is written all or nothing.
type Batch struct {
	Put    []Item
	Delete []Delete
	DryRun bool
}

// Written is what became of a batch.
type Written struct {
	Revision uint64 // 0 in a dry run
	Outcomes []Outcome
	Warnings map[mesh.Ref][]string
}

// Write stores a batch and submits it. Services get their virtual addresses and every
// object its generation and time of creation. An error before anything was stored leaves
// all as it was; it is a *ConflictError where another source owns an object. Unchanged
// objects are submitted too, so that a second try repairs a submission that went wrong.
func (w *Writer) Write(b Batch) (Written, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	puts := make([]Put, len(b.Put))
	for i, item := range b.Put {
		puts[i] = Put{item.Object.Header().Ref, item.Document, item.File}
	}
	outcomes, err := w.db.Commit(puts, b.Delete, true)
	if err != nil || b.DryRun {
		return Written{Outcomes: outcomes}, err
	}
	if err := w.db.AssignVirtualIPs(services(b.Put)...); err != nil {
		return Written{}, err
	}
	if outcomes, err = w.db.Commit(puts, b.Delete, false); err != nil {
		return Written{}, err
	}
	var changes []mesh.Change
	var released []mesh.Name
	for i, o := range outcomes {
		switch {
		case i < len(b.Put):
			meta := b.Put[i].Object.Header()
			meta.Generation, meta.Created = o.Generation, o.Created
			changes = append(changes, mesh.Set(b.Put[i].Object))
		default: // a Missing one too: the mesh may have kept what the disk has not
			changes = append(changes, mesh.Remove(o.Ref))
			if o.Ref.Kind == mesh.KindService && o.Action == Deleted {
				released = append(released, o.Ref.Name)
			}
		}
	}
	out := Written{Outcomes: outcomes}
	if out.Revision, out.Warnings, err = w.submit(changes); err != nil {
		return out, fmt.Errorf("stored, but the mesh did not take it: %w", err)
	}
	return out, w.db.ReleaseVirtualIPs(released...)
}

func services(items []Item) []*mesh.Service {
	var out []*mesh.Service
	for _, item := range items {
		if svc, ok := item.Object.(*mesh.Service); ok {
			out = append(out, svc)
		}
	}
	return out
}

// Load gives everything stored as changes, to be submitted together before anything
// else is. Objects of files outside of directory ("" = there is none) are dropped from the
// state: nobody would ever change them again. An object that decode refuses stays
// stored and is left out; bad says why.
func (w *Writer) Load(directory string, decode func(document []byte) (mesh.Object, error)) (changes []mesh.Change, bad []error, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	records, err := w.db.Records("")
	if err != nil {
		return nil, nil, err
	}
	var items []Item
	var drop []Delete
	for _, r := range records {
		if r.File != "" && filepath.Dir(r.File) != filepath.Clean(directory) {
			drop = append(drop, Delete{r.Ref, r.File})
			continue
		}
		o, err := decode(r.Document)
		if err != nil {
			bad = append(bad, fmt.Errorf("stored %s: %w", r.Ref, err))
			continue
		}
		meta := o.Header()
		meta.Generation, meta.Created = r.Generation, r.Created
		items = append(items, Item{Object: o})
		changes = append(changes, mesh.Set(o))
	}
	if _, err := w.db.Commit(nil, drop, false); err != nil {
		return nil, nil, err
	}
	return changes, bad, w.db.AssignVirtualIPs(services(items)...)
}
