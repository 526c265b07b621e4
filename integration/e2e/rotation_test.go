package e2e

import (
	"encoding/json"
	"strings"
	"testing"
	"time"
)

// TestRotation runs a mesh whose SVIDs live for 20 seconds, so that each is replaced every
// ten, under load on old and on new connections.
func TestRotation(t *testing.T) {
	inBestMode(t, func(t *testing.T, mode string) {
		p := start(t, mode, "svidTTL: 20s\n"+shop, shopObjects())
		loads := []*load{p.Load("web-0", "http://api/", 100), p.Load("db-0", "http://api/", 50, "--fresh")}
		// go-spiffe's own client sees the one in force and three that follow.
		text, err := p.Outside("watch", p.RunDir("api-v1-0")+"/app/workload.sock", "4")
		if err != nil {
			t.Fatal(err)
		}
		NoneFailed(loads...)

		serials := map[string]bool{}
		for line := range strings.Lines(text) {
			var svid struct {
				ID, Serial, Error string
				NotAfter          time.Time
			}
			if err := json.Unmarshal([]byte(line), &svid); err != nil || svid.ID != apiID || svid.Error != "" {
				t.Errorf("watched %s: %v", line, err)
			}
			serials[svid.Serial] = true
		}
		if len(serials) != 4 {
			t.Errorf("4 updates with %d SVIDs:\n%s", len(serials), text)
		}
		for _, workload := range []string{"web-0", "db-0", "api-v1-0", "api-v2-0"} {
			for _, counter := range []string{"envoy_listener_ssl_connection_error", "envoy_listener_ssl_fail_verify_error", "envoy_cluster_ssl_connection_error", "envoy_cluster_ssl_fail_verify_error"} {
				if n := p.metric(workload, counter); n > 0 {
					t.Errorf("%s of %s is %v", counter, workload, n)
				}
			}
			if status, err := p.Status(workload); err != nil || status.Identity.LastError != "" || time.Until(status.Identity.Expires) > 20*time.Second {
				t.Errorf("%s: %+v, %v", workload, status, err)
			}
		}
	})
}
