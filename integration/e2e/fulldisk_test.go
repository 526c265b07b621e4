package e2e

import (
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/heddle-mesh/heddle/identity/statefile/smalldisk"
	"github.com/heddle-mesh/heddle/proxy/capture"
)

// TestDiskFull fills the disk on which a mesh under load has all it stores: the control
// plane's state, the certificate authority, the sidecars' folders, the logs. What cannot
// be stored is refused by the name of its file; everything else goes on, SVIDs are
// rotated; and with space again so is the rest, without a restart.
func TestDiskFull(t *testing.T) {
	needMesh(t)
	mode := rootless
	if capture.MachineRoot() {
		mode = transparent // a plain user cannot enter the mount namespace with root's disk
	}
	smalldisk.Run(t, 160<<20, func(t *testing.T, disk *smalldisk.Disk) {
		build(t) // somewhere else; the mesh keeps a copy of Envoy, of 107 MB
		root = disk.Dir
		p := start(t, mode, "svidTTL: 6s\n"+shop, shopObjects())
		small, big := filepath.Join(p.dir, "small.yaml"), filepath.Join(p.dir, "big.yaml")
		p.write(small, service("small", "app: api", "{name: http, port: 80, targetPort: 8080}"))
		p.write(big, strings.Replace(service("big", "app: api", "{name: http, port: 80, targetPort: 8080}"),
			"{name: big}", "{name: big, annotations: {note: "+strings.Repeat("x", 250_000)+"}}", 1))
		if _, err := p.Heddle("apply", "--wait", "-f", small); err != nil {
			t.Fatal(err)
		}
		before := p.pids()
		loads := []*load{p.Load("web-0", "http://api/", 50), p.Load("db-0", "http://small/", 50, "--fresh")}

		disk.Fill()
		for range 2 {
			out, err := p.Heddle("apply", "-f", big)
			if err == nil || !strings.Contains(err.Error(), filepath.Join(p.state, "controlplane", "state.db")+": no space left on device") {
				t.Errorf("apply on a full disk: %s %v", out, err)
			}
		}
		if out, err := p.Heddle("get", "services", "-o", "name"); err != nil || !strings.Contains(out, "small") || strings.Contains(out, "big") {
			t.Errorf("services on a full disk: %s %v", out, err)
		}
		p.awaitRotations(3)
		p.AwaitCode("web-0", "http://small/", 200)

		disk.Free()
		if out, err := p.Heddle("apply", "--wait", "-f", big); err != nil {
			t.Errorf("apply with space again: %s %v", out, err)
		}
		p.AwaitCode("web-0", "http://big/", 200)
		p.WriteObject("split.yaml", split(0, 100)) // the watched folder was on that disk as well
		p.AwaitVersion("web-0", "v2")
		p.awaitRotations(1)
		NoneFailed(loads...)
		if after := p.pids(); !maps.Equal(before, after) {
			t.Errorf("processes were %v and are %v", before, after)
		}
	})
}

// pids are the processes of the mesh, by name.
func (p *project) pids() map[string]int {
	p.t.Helper()
	processes, err := p.Processes()
	if err != nil {
		p.t.Fatal(err)
	}
	out := map[string]int{}
	for _, q := range processes {
		out[q.Name] = q.PID
	}
	return out
}

// awaitRotations waits until every sidecar has had so many SVIDs more.
func (p *project) awaitRotations(n int) {
	p.t.Helper()
	for range n {
		expires := map[string]time.Time{}
		for _, workload := range []string{"web-0", "db-0", "api-v1-0", "api-v2-0"} {
			status, err := p.Status(workload)
			if err != nil {
				p.t.Fatal(err)
			}
			expires[workload] = status.Identity.Expires
		}
		for _, workload := range slices.Sorted(maps.Keys(expires)) {
			await(p.t, 20*time.Second, workload+" has a new SVID", func() error {
				status, err := p.Status(workload)
				if err == nil && (!status.Identity.Expires.After(expires[workload]) || status.Identity.LastError != "") {
					err = fmt.Errorf("%+v", status.Identity)
				}
				return err
			})
		}
	}
}
