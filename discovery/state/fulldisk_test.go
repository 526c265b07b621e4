package state

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/heddle-mesh/heddle/controlplane/mesh"
	"github.com/heddle-mesh/heddle/identity/statefile/smalldisk"
)

// TestFullDisk writes while there is no space. The error names the file, nothing of the
// batch is stored or submitted, what was there stays, also for who opens the state anew;
// and with space again the same batch is taken without a restart.
func TestFullDisk(t *testing.T) {
	smalldisk.Run(t, 4<<20, func(t *testing.T, disk *smalldisk.Disk) {
		db := open(t, disk.Dir)
		submitted := 0
		w := NewWriter(db, func(changes []mesh.Change) (uint64, map[mesh.Ref][]string, error) {
			submitted++
			return uint64(submitted), nil, nil
		})
		item := func(name string, size int) Item {
			s := &mesh.Service{Meta: mesh.Meta{Ref: service(name)}}
			return Item{Object: s, Document: fmt.Appendf(nil, `{"spec":{"x":%q}}`, strings.Repeat("x", size))}
		}
		if _, err := w.Write(Batch{Put: []Item{item("old", 100)}}); err != nil {
			t.Fatal(err)
		}
		address := db.addresses.leases[service("old").Name]

		disk.Fill()
		batch := Batch{Put: []Item{item("small", 10), item("big", 400<<10)}, Delete: []Delete{{Ref: service("old")}}}
		for range 3 {
			_, err := w.Write(batch)
			if !errors.Is(err, syscall.ENOSPC) || !strings.Contains(err.Error(), filepath.Join(disk.Dir, fileName)) {
				t.Errorf("%v, want one of the full disk that names the file", err)
			}
		}
		records, err := db.Records("")
		if err != nil || len(records) != 1 || records[0].Ref != service("old") || submitted != 1 {
			t.Errorf("stored while the disk was full: %v, %v; %d submitted", records, err, submitted)
		}
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
		w.db = open(t, disk.Dir) // a restart meanwhile
		disk.Free()

		written, err := w.Write(batch)
		if err != nil || len(written.Outcomes) != 3 || submitted != 2 {
			t.Errorf("with space again: %+v, %v", written, err)
		}
		if got := w.db.addresses.leases[service("old").Name]; got.V4 != address.V4 {
			t.Errorf("the address was %v and is %v", address, got)
		}
		if records, err := w.db.Records(""); err != nil || len(records) != 2 {
			t.Errorf("stored in the end: %v, %v", records, err)
		}
	})
}
