package relay

import (
	"bytes"
	"context"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/heddle-mesh/heddle/identity/statefile/smalldisk"
)

// TestFullDisk changes the configuration while the disk is full: the last saved one stays
// whole, one warning names the file, and the newest is saved when there is space.
func TestFullDisk(t *testing.T) {
	smalldisk.Run(t, 256<<10, func(t *testing.T, disk *smalldisk.Disk) {
		synctest.Test(t, func(t *testing.T) {
			var log bytes.Buffer
			g, err := openGood(disk.Dir, slog.New(slog.NewTextHandler(&log, nil)))
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan struct{})
			go func() { defer close(done); g.run(ctx) }()
			saved := func(version string) {
				t.Helper()
				responses, err := readGood(g.path)
				if err != nil || len(responses) != 1 || responses[0].GetResources()[0].GetVersion() != version {
					t.Errorf("saved is %v, %v; want version %s", responses, err, version)
				}
			}
			set := func(version string) {
				g.apply(&discoveryv3.DeltaDiscoveryResponse{TypeUrl: "t", Resources: []*discoveryv3.Resource{{Name: "a", Version: version, Resource: &anypb.Any{}}}})
				time.Sleep(time.Minute)
			}
			set("1")
			saved("1")
			disk.Fill()
			set("2")
			set("3")
			saved("1")
			disk.Free()
			time.Sleep(time.Minute)
			saved("3")
			cancel()
			<-done
			if n := strings.Count(log.String(), "level=WARN"); n != 1 || !strings.Contains(log.String(), g.path) || strings.Count(log.String(), "is saved again") != 1 {
				t.Errorf("want one warning that names %s, and one word of its end:\n%s", g.path, log.String())
			}
		})
	})
}
