package state

import (
	"bytes"
	"cmp"
	"fmt"
	"strings"

	bolt "go.etcd.io/bbolt"

	"github.com/heddle-mesh/heddle/controlplane/mesh"
)

// Action is what became of one object of a batch.
type Action int

// The actions. Missing is a delete of what is not there.
const (
	Unchanged Action = iota
	Created
	Configured
	Deleted
	Missing
)

// Put is an object's new document.
type Put struct {
	Ref      mesh.Ref
	Document []byte // canonical JSON
	File     string // where it comes from; "" = the API
}

// Delete is an object's end, asked for by its file, or by the API when File is "".
// A file may also be any: the directory decides among its own files.
type Delete struct {
	Ref  mesh.Ref
	File string
}

// Outcome is what became of one object.
type Outcome struct {
	Ref        mesh.Ref
	Action     Action
	Generation int64
	Created    int64
}

// Conflict is an object that another source owns.
type Conflict struct {
	Ref   mesh.Ref
	Owner string // a file; "" = the API
	File  string // who asked
}

// ConflictError refuses a batch; nothing of it is stored.
type ConflictError struct{ Conflicts []Conflict }

// Error names every object and its owner.
func (e *ConflictError) Error() string {
	var lines []string
	for _, c := range e.Conflicts {
		if c.Owner == "" {
			lines = append(lines, fmt.Sprintf("%s was applied over the API; delete it there first", c.Ref))
		} else {
			lines = append(lines, fmt.Sprintf("%s comes from the file %s; change it there", c.Ref, c.Owner))
		}
	}
	return strings.Join(lines, "\n")
}

// Commit stores all of the puts and deletes, or none: where one belongs to another
// source the error is a *ConflictError, and any other error is the disk's. It returns
// when they are on disk. The outcomes are in the order of puts, then deletes. A dry run
// gives the same and stores nothing.
func (db *DB) Commit(puts []Put, deletes []Delete, dryRun bool) ([]Outcome, error) {
	var outcomes []Outcome
	err := db.update(func(tx *bolt.Tx) error {
		c := committer{objects: tx.Bucket(objectsBucket), now: db.now().UnixNano()}
		for _, p := range puts {
			if err := c.put(p); err != nil {
				return err
			}
		}
		for _, d := range deletes {
			if err := c.delete(d); err != nil {
				return err
			}
		}
		outcomes = c.outcomes
		if len(c.conflicts) > 0 {
			return &ConflictError{c.conflicts}
		}
		if dryRun || !c.changed {
			return errUndo // spares a write and its fsync
		}
		return nil
	})
	if err != nil {
		if conflict, ok := err.(*ConflictError); ok {
			return nil, conflict
		}
		return nil, fmt.Errorf("store %d objects: %w", cmp.Or(len(puts)+len(deletes), 1), err)
	}
	return outcomes, nil
}

// committer is one transaction on its way.
type committer struct {
	objects   *bolt.Bucket
	now       int64
	changed   bool
	outcomes  []Outcome
	conflicts []Conflict
}

func (c *committer) put(p Put) error {
	old, exists, err := getRecord(c.objects, p.Ref)
	if err != nil {
		return err
	}
	r := Record{Ref: p.Ref, File: p.File, Generation: 1, Created: c.now, Document: p.Document}
	action := Created
	if exists {
		if (old.File == "") != (p.File == "") {
			c.conflicts = append(c.conflicts, Conflict{p.Ref, old.File, p.File})
			return nil
		}
		r.Generation, r.Created, action = old.Generation, old.Created, Unchanged
		if !bytes.Equal(old.Document, p.Document) {
			action = Configured
			if !bytes.Equal(specOf(old.Document), specOf(p.Document)) {
				r.Generation++
			}
		}
	}
	c.outcomes = append(c.outcomes, Outcome{r.Ref, action, r.Generation, r.Created})
	if action == Unchanged && old.File == r.File {
		return nil
	}
	c.changed = true
	return putRecord(c.objects, r)
}

func (c *committer) delete(d Delete) error {
	old, exists, err := getRecord(c.objects, d.Ref)
	switch {
	case err != nil:
		return err
	case !exists:
		c.outcomes = append(c.outcomes, Outcome{Ref: d.Ref, Action: Missing})
		return nil
	case (old.File == "") != (d.File == ""):
		c.conflicts = append(c.conflicts, Conflict{d.Ref, old.File, d.File})
		return nil
	}
	c.changed = true
	c.outcomes = append(c.outcomes, Outcome{d.Ref, Deleted, old.Generation, old.Created})
	return c.objects.Delete(key(d.Ref))
}
