package e2e

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"
)

// rotations is how often at least every SVID is replaced while TestRotation looks on.
const rotations = 2

// TestRotation runs a mesh whose SVIDs live for 20 seconds, so that each is replaced every
// ten, under load on old and on new connections. Proxies keep the connections between
// them, so requests alone make few handshakes; what makes one for each connection are
// callers of the database, and a client of the test that shows a workload's SVIDs to
// other workloads' proxies. None of the handshakes fails, and both ends of them rotate.
func TestRotation(t *testing.T) {
	t.Parallel()
	inBestMode(t, func(t *testing.T, mode string) {
		p := start(t, mode, "svidTTL: 20s\n"+shop, shopObjects())
		client, server := p.metric("web-0", "envoy_cluster_ssl_handshake"), p.metric("db-0", "envoy_listener_ssl_handshake")
		loads := []*load{p.Load("web-0", "http://api/", 100), p.Load("db-0", "http://api/", 50, "--fresh")}
		direct := p.Handshakes("web-0", "api-v1-0", 8080, 20)
		proxied := p.Connects("web-0", "db:3306", 20)

		updates, shown := p.watchRotations("api-v1-0", "web-0")
		p.during(time.Second) // sessions with the last of them
		NoneFailed(loads...)
		if s := direct.AllMade(); len(s.Own) <= rotations || len(s.Peer) <= rotations {
			t.Errorf("too few certificates in %s", direct.out.String())
		}
		made := proxied.AllMade()
		client, server = p.metric("web-0", "envoy_cluster_ssl_handshake")-client, p.metric("db-0", "envoy_listener_ssl_handshake")-server
		t.Logf("web's proxy made %v handshakes with %d SVIDs, db's proxy took %v", client, len(shown), server)
		if int(client) < made.OK || int(server) < made.OK || len(shown) <= rotations {
			t.Errorf("%d connections of web to db, SVIDs of web %v", made.OK, shown)
		}
		checkUpdates(t, updates)
		await(t, 10*time.Second, "'heddle svid' shows the SVID that the proxy has", func() error { return p.sameChain("web-0", webID) })
		p.checkHandshakes("web-0", "db-0", "api-v1-0", "api-v2-0")
	})
}

// watchRotations returns when go-spiffe's own client has seen the SVID of a workload that
// is in force and three that follow, and a caller's proxy has had enough of its own. It gives what the client told, and the serial numbers
// that the proxy had in use.
func (p *project) watchRotations(workload, caller string) (updates string, shown map[string]bool) {
	p.t.Helper()
	socket := p.RunDir(workload) + "/app/workload.sock"
	ended := make(chan error, 1)
	go func() {
		var err error
		updates, err = p.Outside("watch", socket, "4")
		ended <- err
	}()
	shown = map[string]bool{}
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for watched := false; !watched || len(shown) <= rotations; {
		serial, err := p.serial(caller)
		if err != nil {
			p.t.Fatal(err)
		}
		shown[serial] = true
		select {
		case err := <-ended:
			if err != nil {
				p.t.Fatal(err)
			}
			watched = true
		case <-tick.C:
		}
	}
	return updates, shown
}

// sameChain compares what 'heddle svid' shows with what a workload's Envoy uses. They may
// differ for a moment after a rotation.
func (p *project) sameChain(workload, id string) error {
	text, err := p.Heddle("svid", workload, "-o", "json")
	if err != nil {
		return err
	}
	var shown struct {
		Chain []struct{ Subject, Issuer, Serial string }
	}
	if err := json.Unmarshal([]byte(text), &shown); err != nil {
		return err
	}
	serial, err := p.serial(workload)
	if err != nil {
		return err
	}
	if c := shown.Chain; len(c) != 2 || c[0].Subject != id || c[0].Issuer != c[1].Subject || c[0].Serial != serial {
		return fmt.Errorf("Envoy has %s, and 'heddle svid' shows %s", serial, text)
	}
	return nil
}

// checkUpdates: each update that go-spiffe's client got has another SVID of api.
func checkUpdates(t *testing.T, updates string) {
	t.Helper()
	serials := map[string]bool{}
	for line := range strings.Lines(updates) {
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
		t.Errorf("4 updates with %d SVIDs:\n%s", len(serials), updates)
	}
}

// checkHandshakes: no proxy has counted a handshake that failed, and every SVID is fresh.
func (p *project) checkHandshakes(workloads ...string) {
	p.t.Helper()
	for _, workload := range workloads {
		for _, counter := range []string{"envoy_listener_ssl_connection_error", "envoy_listener_ssl_fail_verify_error", "envoy_cluster_ssl_connection_error", "envoy_cluster_ssl_fail_verify_error"} {
			if n := p.metric(workload, counter); n > 0 {
				p.t.Errorf("%s of %s is %v", counter, workload, n)
			}
		}
		if status, err := p.Status(workload); err != nil || status.Identity.LastError != "" || time.Until(status.Identity.Expires) > 20*time.Second {
			p.t.Errorf("%s: %+v, %v", workload, status, err)
		}
	}
}
