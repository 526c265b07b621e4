package e2e

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// zoned has a client in zone a, a client with replicas in both zones, and an API of which
// api-0 and api-1 are in zone a and api-2 is in zone b.
const zoned = `
services:
  web:
    ports: [8080]
    zones: [a]
    command: [APP, serve, --http, ":8080"]
  wide:
    ports: [8080]
    zones: [a, b]
    command: [APP, serve, --http, ":8080"]
  api:
    ports: [8080]
    zones: [a, a, b]
    ready: /healthz
    command: [APP, serve, --http, ":8080"]
`

// zonedServices are those of zoned, with more in the API's spec.
func zonedServices(api string) map[string]string {
	return map[string]string{
		"services.yaml": service("web", "app: web", "{name: http, port: 80, targetPort: 8080}") +
			service("wide", "app: wide", "{name: http, port: 80, targetPort: 8080}") +
			service("api", "app: api", "{name: http, port: 80, targetPort: 8080}", api),
		"config.yaml": `
apiVersion: mesh.heddle.dev/v1alpha1
kind: MeshConfig
metadata: {name: mesh}
spec: {outlierDetection: {consecutiveErrors: 3, baseEjectionTime: 2s}}
`,
	}
}

// TestZones looks who answers clients whose replicas are in one zone or in two: each of the
// API's has the same share of what a client's replicas send in all, and as much of that as
// can be so is from its own zone. A share that moves with readiness costs no request.
func TestZones(t *testing.T) {
	t.Parallel()
	inBestMode(t, func(t *testing.T, mode string) {
		p := start(t, mode, zoned, zonedServices(""))
		third := map[string]float64{"api-0": 1. / 3, "api-1": 1. / 3, "api-2": 1. / 3}
		p.awaitShares("web-0", third) // it is alone: two thirds of its zone, one of the other
		p.awaitShares("wide-0", map[string]float64{"api-0": 1. / 2, "api-1": 1. / 2})
		p.awaitShares("wide-1", map[string]float64{"api-0": 1. / 6, "api-1": 1. / 6, "api-2": 2. / 3})
		load := p.Load("wide-1", "http://api/", 100)
		p.tell("api-1", "/unready")
		p.awaitShares("wide-0", map[string]float64{"api-0": 1})
		p.awaitShares("wide-1", map[string]float64{"api-2": 1})
		p.tell("api-2", "/unready")
		p.awaitShares("wide-1", map[string]float64{"api-0": 1})
		p.tell("api-1", "/ready")
		p.tell("api-2", "/ready")
		p.awaitShares("wide-1", map[string]float64{"api-0": 1. / 6, "api-1": 1. / 6, "api-2": 2. / 3})
		NoneFailed(load)
		p.WriteObject("config.yaml", `
apiVersion: mesh.heddle.dev/v1alpha1
kind: MeshConfig
metadata: {name: mesh}
spec: {locality: {preferZone: false}}
`)
		p.awaitShares("wide-0", third)
	})
}

// awaitShares waits until the requests of a client to api are answered by all of the given
// workloads, in these shares, and no other.
func (p *project) awaitShares(client string, shares map[string]float64) {
	p.t.Helper()
	const n = 600
	await(p.t, 20*time.Second, fmt.Sprintf("%s is answered in shares of %v", client, shares), func() error {
		s := p.Load(client, "http://api/", 2000, "--count", fmt.Sprint(n)).Wait()
		for w, share := range shares {
			// Six standard deviations of n draws at random are 0.12 at the most.
			if got := float64(s.By[w]) / n; got < share-0.12 || got > share+0.12 {
				return fmt.Errorf("%+v", s)
			}
		}
		if s.Failed > 0 || len(s.By) != len(shares) {
			return fmt.Errorf("%+v", s)
		}
		return nil
	})
}

// TestBalance looks who answers a client of a service that is to keep to zones: the replicas
// in the client's zone share its requests; one that is not ready, or answers badly, gets
// none, and without any in the zone the other zone answers. No request fails on the way but
// those that a bad replica answered.
func TestBalance(t *testing.T) {
	t.Parallel()
	inBestMode(t, func(t *testing.T, mode string) {
		p := start(t, mode, zoned, zonedServices(", trafficDistribution: PreferSameZone"))
		p.awaitAnswers("api-0", "api-1")
		load := p.Load("web-0", "http://api/", 100)
		p.tell("api-1", "/unready")
		p.awaitAnswers("api-0")
		p.tell("api-0", "/unready")
		p.awaitAnswers("api-2")
		p.tell("api-1", "/ready")
		p.awaitAnswers("api-1")
		p.tell("api-0", "/ready")
		p.awaitAnswers("api-0", "api-1")
		NoneFailed(load)

		p.tell("api-0", "/break")
		const n = 200
		s := p.Load("web-0", "http://api/", 200, "--count", fmt.Sprint(n)).Wait()
		// The first three tell that it is bad, and three more after each time out.
		if s.Failed < 3 || s.Failed > 20 || s.OK+s.Failed != n {
			t.Errorf("with a bad replica: %+v", s)
		}
		p.tell("api-0", "/mend")
		p.awaitAnswers("api-0", "api-1")
	})
}

// tell sends a request to a workload's own program, past its proxy.
func (p *project) tell(workload, path string) {
	p.t.Helper()
	if a := p.MustAsk(workload, "get", "POST", "http://127.0.0.1:8080"+path); a.Code != 200 {
		p.t.Fatalf("%s of %s: %+v", path, workload, a)
	}
}

// awaitAnswers waits until the requests of web-0 to api are answered by some workloads:
// all of these, in fair shares, and no other.
func (p *project) awaitAnswers(workloads ...string) {
	p.t.Helper()
	const n = 100
	await(p.t, 20*time.Second, strings.Join(workloads, " and ")+" answer", func() error {
		s := p.Load("web-0", "http://api/", 1000, "--count", fmt.Sprint(n)).Wait()
		for _, w := range workloads {
			// Of two that share 100 at random one gets less than 25 once in 3 million times.
			if s.By[w] < n/len(workloads)/2 {
				return fmt.Errorf("%+v", s)
			}
		}
		if s.Failed > 0 || len(s.By) != len(workloads) {
			return fmt.Errorf("%+v", s)
		}
		return nil
	})
}
