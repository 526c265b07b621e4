// Package smalldisk gives tests a file system so small that they can fill it.
//
// It is a tmpfs in a mount namespace of the test's own, which only a new process can
// have: the test runs again in a child. No root is needed where plain users may have
// user namespaces.
package smalldisk

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// childOf names the test that a child is for.
const childOf = "HEDDLE_TEST_SMALLDISK"

// Disk is a file system of a test.
type Disk struct {
	Dir string // empty at first, mode 0700
	t   *testing.T
}

// Run runs test with a disk of so many bytes.
func Run(t *testing.T, bytes int, test func(*testing.T, *Disk)) {
	t.Helper()
	if os.Getenv(childOf) != t.Name() {
		runChild(t)
		return
	}
	dir, err := os.MkdirTemp("", "sd") // short, for the limit on socket paths
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.Remove(dir) }) // empty: the disk is unmounted by then
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, fmt.Sprintf("size=%d,mode=700", bytes)); err != nil {
		t.Fatalf("mount a small disk: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	test(t, &Disk{dir, t})
}

func runChild(t *testing.T) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	var parts []string // of the name, each to be matched as a whole
	for part := range strings.SplitSeq(t.Name(), "/") {
		parts = append(parts, "^"+part+"$")
	}
	cmd := exec.Command(self, "-test.run="+strings.Join(parts, "/"), "-test.count=1", "-test.v")
	cmd.Env = append(os.Environ(), childOf+"="+t.Name())
	// Go makes all mounts of the new namespace private.
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: unix.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	if os.Geteuid() != 0 {
		cmd.SysProcAttr.Cloneflags = unix.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{HostID: os.Getuid(), Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{HostID: os.Getgid(), Size: 1}}
	}
	out, err := cmd.CombinedOutput()
	t.Logf("in a child:\n%s", out)
	if err == nil && !strings.Contains(string(out), "--- PASS: "+t.Name()+" ") {
		err = errors.New("it did not run")
	}
	if err != nil {
		t.Fatalf("the test in a child: %v", err)
	}
}

// Fill takes all space that is left.
func (d *Disk) Fill() {
	d.t.Helper()
	f, err := os.OpenFile(d.filler(), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		d.t.Fatal(err)
	}
	defer f.Close()
	block := make([]byte, 4096)
	for err == nil {
		_, err = f.Write(block)
	}
	if !errors.Is(err, unix.ENOSPC) {
		d.t.Fatalf("fill the disk: %v", err)
	}
}

// Free gives the space that Fill took back.
func (d *Disk) Free() {
	d.t.Helper()
	if err := os.Remove(d.filler()); err != nil {
		d.t.Fatal(err)
	}
}

func (d *Disk) filler() string { return filepath.Join(d.Dir, "filler") }
