package agent

import (
	"bytes"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/heddle-mesh/heddle/identity/internal/identitytest"
	"github.com/heddle-mesh/heddle/identity/statefile/smalldisk"
)

// TestFullDiskIsToldOnce fills the disk of a running agent for many renewals. It goes on
// with SVIDs in memory, warns once, leaves the last stored one whole, and stores the next
// when there is space.
func TestFullDiskIsToldOnce(t *testing.T) {
	smalldisk.Run(t, 256<<10, func(t *testing.T, disk *smalldisk.Disk) {
		synctest.Test(t, func(t *testing.T) {
			cp := identitytest.New(t, filepath.Join(disk.Dir, "cp"))
			cp.Start()
			var log bytes.Buffer
			config := testConfig(t, cp, filepath.Join(disk.Dir, "agent"))
			config.Log = slog.New(slog.NewTextHandler(&log, nil))
			a, stop := start(t, config)
			synctest.Wait()
			stored := mustSVID(t, a)
			disk.Fill()
			seen := map[string]bool{}
			for range 10 {
				<-a.Updated()
				seen[mustSVID(t, a).Certificates[0].SerialNumber.String()] = true
				if c := a.load(); time.Now().Before(stored.Certificates[0].NotAfter) && (c == nil || !c.svid.Certificates[0].Equal(stored.Certificates[0])) {
					t.Error("the last stored SVID is gone from disk")
				}
			}
			synctest.Wait()
			if s := a.Status(); len(seen) != 10 || !strings.Contains(s.DiskError, "no space left on device") || s.LastError != "" {
				t.Errorf("%d SVIDs while the disk was full, status %+v", len(seen), s)
			}
			disk.Free()
			<-a.Updated()
			synctest.Wait()
			if c := a.load(); c == nil || !c.svid.Certificates[0].Equal(mustSVID(t, a).Certificates[0]) || a.Status().DiskError != "" {
				t.Errorf("with space again, on disk is %v, status %+v", c, a.Status())
			}
			stop()
			warnings := strings.Count(log.String(), "level=WARN msg=\"SVID not stored: a restart needs the control plane\"")
			if file := filepath.Join(config.Dir, svidFile); warnings != 1 || !strings.Contains(log.String(), file) || strings.Count(log.String(), "SVID stored again") != 1 {
				t.Errorf("want one warning that names %s, and one word of its end:\n%s", file, log.String())
			}
		})
	})
}
