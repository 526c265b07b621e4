package state

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	bolt "go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"

	"github.com/heddle-mesh/heddle/controlplane/mesh"
)

// fileName of the database in its directory.
const fileName = "state.db"

// lockWait is how long Open waits for a control plane that is just ending.
const lockWait = 2 * time.Second

var (
	objectsBucket = []byte("objects")
	addressBucket = []byte("addresses")
	usesBucket    = []byte("uses")
)

// ErrInUse is what Open's error wraps while another process has the directory.
var ErrInUse = errors.New("another control plane runs with this directory")

// Record is one stored object.
type Record struct {
	Ref mesh.Ref
	// File is where the object comes from, or "" when it came over the API.
	File       string
	Generation int64 // counts the changes of spec, from 1
	Created    int64 // Unix nanoseconds
	Document   []byte
}

// DB is the durable state. Its methods may be called at the same time.
type DB struct {
	bolt *bolt.DB
	now  func() time.Time

	mu        sync.Mutex // guards addresses
	addresses addressPlan
}

// Open opens or makes the state in dir, which it makes with mode 0700 where missing.
func Open(dir string, c Config) (*DB, error) {
	if err := c.validate(); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make state directory: %w", err)
	}
	path := filepath.Join(dir, fileName)
	file, err := bolt.Open(path, 0o600, &bolt.Options{Timeout: lockWait})
	if errors.Is(err, bolterrors.ErrTimeout) {
		return nil, fmt.Errorf("open state directory %s: %w; stop it, or give this one a directory of its own", dir, ErrInUse)
	}
	if err != nil {
		return nil, fmt.Errorf("open state %s: %w", path, err)
	}
	db := &DB{bolt: file, now: time.Now}
	err = db.update(func(tx *bolt.Tx) error {
		for _, name := range [][]byte{objectsBucket, addressBucket, usesBucket} {
			if _, err := tx.CreateBucketIfNotExists(name); err != nil {
				return err
			}
		}
		return db.loadAddresses(tx, c)
	})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open state %s: %w", path, err), file.Close())
	}
	return db, nil
}

// Close ends the use of the file.
func (db *DB) Close() error { return db.bolt.Close() }

// errUndo makes a transaction end without a change and without an error.
var errUndo = errors.New("undo")

// update runs f in a transaction that is on disk when it returns nil. A panic of bbolt,
// which maps its file and so cannot report all faults as errors, is not caught: the
// file is whole up to the last transaction.
func (db *DB) update(f func(*bolt.Tx) error) error {
	err := db.bolt.Update(f)
	if errors.Is(err, errUndo) {
		return nil
	}
	return err
}

// key of an object: KIND/NAMESPACE/NAME; no part can contain a slash.
func key(r mesh.Ref) []byte {
	return []byte(string(r.Kind) + "/" + r.Namespace + "/" + r.Name.Name)
}

func refOf(key []byte) (mesh.Ref, error) {
	parts := strings.Split(string(key), "/")
	if len(parts) != 3 {
		return mesh.Ref{}, fmt.Errorf("stored key %q is not KIND/NAMESPACE/NAME", key)
	}
	return mesh.Ref{Kind: mesh.Kind(parts[0]), Name: mesh.Name{Namespace: parts[1], Name: parts[2]}}, nil
}

// entry is a record as it is stored.
type entry struct {
	File       string `json:"file,omitempty"`
	Generation int64  `json:"generation"`
	Created    int64  `json:"created"`
	// Document is a string and not nested JSON, so that its bytes stay as they are.
	Document string `json:"document"`
}

func getRecord(b *bolt.Bucket, ref mesh.Ref) (Record, bool, error) {
	value := b.Get(key(ref))
	if value == nil {
		return Record{}, false, nil
	}
	r, err := decodeRecord(ref, value)
	return r, err == nil, err
}

func decodeRecord(ref mesh.Ref, value []byte) (Record, error) {
	var e entry
	if err := json.Unmarshal(value, &e); err != nil {
		return Record{}, fmt.Errorf("read stored %s: %w", ref, err)
	}
	return Record{ref, e.File, e.Generation, e.Created, []byte(e.Document)}, nil
}

func putRecord(b *bolt.Bucket, r Record) error {
	value, err := json.Marshal(entry{r.File, r.Generation, r.Created, string(r.Document)})
	if err != nil {
		return fmt.Errorf("encode %s: %w", r.Ref, err)
	}
	return b.Put(key(r.Ref), value)
}

// Records gives the stored objects of a kind, or of all kinds for "", by reference.
func (db *DB) Records(kind mesh.Kind) ([]Record, error) {
	var out []Record
	err := db.bolt.View(func(tx *bolt.Tx) error {
		c := tx.Bucket(objectsBucket).Cursor()
		prefix := []byte(nil)
		if kind != "" {
			prefix = []byte(kind + "/")
		}
		for k, v := c.Seek(prefix); k != nil && bytes.HasPrefix(k, prefix); k, v = c.Next() {
			ref, err := refOf(k)
			if err != nil {
				return err
			}
			r, err := decodeRecord(ref, v)
			if err != nil {
				return err
			}
			out = append(out, r)
		}
		return nil
	})
	return out, err
}

// Record gives one stored object and whether there is one.
func (db *DB) Record(ref mesh.Ref) (Record, bool, error) {
	var r Record
	var ok bool
	err := db.bolt.View(func(tx *bolt.Tx) error {
		var err error
		r, ok, err = getRecord(tx.Bucket(objectsBucket), ref)
		return err
	})
	return r, ok, err
}

// specOf is a document's spec as it stands there. Canonical documents of equal specs
// have equal bytes.
func specOf(document []byte) []byte {
	var d struct {
		Spec json.RawMessage `json:"spec"`
	}
	if json.Unmarshal(document, &d) != nil {
		return document
	}
	return d.Spec
}
