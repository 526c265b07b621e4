//go:build k8s

package cluster

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestMain(m *testing.M) {
	Main()
	os.Exit(m.Run())
}

// TestClose boots a cluster, closes it, and looks for what it left on the machine.
func TestClose(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 40*time.Minute) // a cold build of Kubernetes
	defer cancel()
	o := Options{Name: fmt.Sprintf("close-%d", os.Getpid()), Dir: filepath.Join(t.TempDir(), "cluster"), Nodes: 1, Log: t.Output()}
	c, err := Start(ctx, o)
	if err != nil {
		t.Fatal(err)
	}
	spaces := namespaces(t, c.pid)
	seen := strings.Join(traces(t, o, spaces), "\n")
	for _, kind := range []string{"process ", "cgroup ", "file "} {
		if !strings.Contains(seen, kind) {
			t.Errorf("no %sof a cluster that runs is seen: one that is left would not be, either", kind)
		}
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	// The kernel takes away what was killed in its own time: of a process that has ended its
	// PID namespace is seen until then.
	left := traces(t, o, spaces)
	for end := time.Now().Add(10 * time.Second); len(left) > 0 && time.Now().Before(end); left = traces(t, o, spaces) {
		time.Sleep(50 * time.Millisecond)
	}
	for _, trace := range left {
		t.Error("left behind:", trace)
	}
}

// traces are what there is of a cluster on the machine, a line each. spaces are the
// namespaces of its processes: a network lives for as long as a process, a mount or an open
// file has it.
func traces(t *testing.T, o Options, spaces map[string]bool) (found []string) {
	t.Helper()
	see := func(format string, args ...any) { found = append(found, fmt.Sprintf(format, args...)) }
	if _, err := os.Lstat(o.Dir); err == nil {
		see("file %s", o.Dir)
	}
	for _, pattern := range []string{"/sys/fs/cgroup/", "/sys/fs/cgroup/*/"} {
		for _, path := range glob(t, pattern+cgroupName(o.Name)) {
			see("cgroup %s", path)
		}
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(mounts)) {
		if root := strings.Fields(line)[3]; strings.Contains(line, o.Dir) || spaces[root] {
			see("mount %s", line)
		}
	}
	for _, name := range []string{bridgeName, hostLink(1)} {
		if _, err := net.InterfaceByName(name); err == nil {
			see("link %s", name)
		}
	}
	for _, link := range append(glob(t, "/proc/[0-9]*/ns/*"), glob(t, "/proc/[0-9]*/fd/*")...) {
		if space, err := os.Readlink(link); err == nil && spaces[space] { // else it has ended meanwhile
			see("process or open file %s: %s", link, space)
		}
	}
	return found
}

// namespaces are those of a process and its descendants that are not ours.
func namespaces(t *testing.T, pid int) map[string]bool {
	t.Helper()
	found := map[string]bool{}
	for pids := []string{fmt.Sprint(pid)}; len(pids) > 0; pids = pids[1:] {
		for _, link := range glob(t, "/proc/"+pids[0]+"/ns/*") {
			theirs, err := os.Readlink(link)
			if err != nil {
				continue
			}
			ours, err := os.Readlink("/proc/self/ns/" + filepath.Base(link))
			if err != nil {
				t.Fatal(err)
			}
			if theirs != ours {
				found[theirs] = true
			}
		}
		for _, list := range glob(t, "/proc/"+pids[0]+"/task/*/children") { // each thread has its own
			children, err := os.ReadFile(list)
			if err == nil {
				pids = append(pids, strings.Fields(string(children))...)
			}
		}
	}
	return found
}

func glob(t *testing.T, pattern string) []string {
	t.Helper()
	paths, err := filepath.Glob(pattern)
	if err != nil {
		t.Fatal(err)
	}
	return paths
}
