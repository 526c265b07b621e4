package ca

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/heddle-mesh/heddle/identity/statefile/smalldisk"
)

// TestFullDisk opens and rotates an authority while there is no space. Whatever cannot be
// done leaves all files as they were, and nothing of it in memory either.
func TestFullDisk(t *testing.T) {
	smalldisk.Run(t, 256<<10, func(t *testing.T, disk *smalldisk.Disk) {
		synctest.Test(t, func(t *testing.T) { rotateOnFullDisk(t, disk) })
	})
}

func rotateOnFullDisk(t *testing.T, disk *smalldisk.Disk) {
	id := mustID(t, "spiffe://shop.example/ns/default/sa/api")
	dir := filepath.Join(disk.Dir, "ca")
	refused := func(what string, step func() error) {
		t.Helper()
		disk.Fill()
		defer disk.Free()
		before := contents(t, dir)
		if err := step(); !errors.Is(err, syscall.ENOSPC) || !strings.Contains(err.Error(), dir) {
			t.Errorf("%s: %v, want one of the full disk that names a file", what, err)
		}
		if diff := cmp.Diff(before, contents(t, dir)); diff != "" {
			t.Errorf("%s changed files (-before +after):\n%s", what, diff)
		}
	}
	refused("the first opening", func() error {
		_, err := Open(dir, testConfig())
		return err
	})
	c := mustOpen(t, dir, testConfig())
	root := c.Bundle().X509Authorities()[0]

	refused("PrepareRoot", c.PrepareRoot)
	if n := len(c.Bundle().X509Authorities()); n != 1 {
		t.Errorf("%d roots after a root could not be prepared", n)
	}
	if err := c.PrepareRoot(); err != nil {
		t.Fatal(err)
	}
	time.Sleep(c.SVIDTTL() + time.Second)
	refused("ActivateRoot", c.ActivateRoot)
	if chain := mustSign(t, c, id); !chain[1].NotAfter.Before(root.NotAfter) || chain[1].CheckSignatureFrom(root) != nil {
		t.Error("the old root signs no more after a new one could not be activated")
	}

	// An authority that is there can be opened again while the disk is full, and is the same.
	disk.Fill()
	again := mustOpen(t, dir, testConfig())
	if !again.Bundle().Equal(c.Bundle()) {
		t.Error("opened again, it has another bundle")
	}
	mustSign(t, again, id)
	disk.Free()

	if err := c.ActivateRoot(); err != nil {
		t.Fatal(err)
	}
	if mustSign(t, c, id)[1].CheckSignatureFrom(root) == nil {
		t.Error("the old root signs still")
	}
	time.Sleep(c.SVIDTTL() + 2*clockSkew)
	disk.Fill() // to remove a file takes no space
	if err := c.RetireRoots(); err != nil || len(c.Bundle().X509Authorities()) != 1 {
		t.Errorf("RetireRoots: %v", err)
	}
	disk.Free()
}

// contents are the files of a folder, by name.
func contents(t *testing.T, dir string) map[string]string {
	t.Helper()
	out := map[string]string{}
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	for _, e := range entries {
		data, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		out[e.Name()] = string(data)
	}
	return out
}
