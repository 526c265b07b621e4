package e2e

import (
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"testing"
	"time"
)

// TestChurn changes everything at random under a constant load, while replicas are restarted
// and SVIDs replaced every five seconds: no request fails. HEDDLE_TEST_SEED
// makes the changes of an earlier run again.
func TestChurn(t *testing.T) {
	t.Parallel()
	const changes, pace = 100, 350 * time.Millisecond
	inBestMode(t, func(t *testing.T, mode string) {
		twice := strings.Replace(shop, "ready: /healthz", "ready: /healthz\n    replicas: 2", 1)
		p := start(t, mode, "svidTTL: 10s\n"+twice, shopObjects())
		seed := uint64(time.Now().UnixNano())
		if text := os.Getenv("HEDDLE_TEST_SEED"); text != "" {
			if _, err := fmt.Sscan(text, &seed); err != nil {
				t.Fatalf("HEDDLE_TEST_SEED=%s: %v", text, err)
			}
		}
		t.Logf("HEDDLE_TEST_SEED=%d", seed)
		c := &churn{project: p, rand: rand.New(rand.NewPCG(seed, 0)), restarted: make(chan error, 1)}
		c.restarted <- nil
		loads := []*load{p.Load("web-0", "http://api/", 100), p.Load("db-0", "http://api/", 100)}
		tick := time.NewTicker(pace)
		defer tick.Stop()
		for range changes {
			<-tick.C
			what := c.change()
			t.Logf("%s %s", time.Now().UTC().Format("15:04:05.000"), what)
		}
		if err := <-c.restarted; err != nil {
			t.Error(err)
		}
		p.during(time.Second) // the last change too is in force
		NoneFailed(loads...)
		if t.Logf("%d restarts", c.restarts); c.restarts < 3 {
			t.Error("there were too few to tell")
		}
		if nacks := p.refusals(); nacks != "" {
			t.Errorf("proxies refused configuration: %s", nacks)
		}
	})
}

// refusals are lines of the control plane's log in which a proxy refuses something.
func (p *project) refusals() string {
	var out strings.Builder
	for line := range strings.Lines(p.Log("controlplane")) {
		if strings.Contains(strings.ToLower(line), "nack") || strings.Contains(line, "refused") {
			out.WriteString(line)
		}
	}
	return out.String()
}

// churn makes changes that must not matter to a request.
type churn struct {
	*project
	rand      *rand.Rand
	restarted chan error // the end of the replica's restart under way; full when there is none
	restarts  int
}

// change makes one change and says which.
func (c *churn) change() string {
	changes := []func() string{c.split, c.split, c.route, c.noRoute, c.policy, c.noPolicy, c.config, c.config, c.endpoints, c.endpoints, c.others, c.replica, c.replica, c.replica}
	return changes[c.rand.IntN(len(changes))]()
}

func (c *churn) split() string {
	v1 := c.rand.IntN(101)
	c.WriteObject("route.yaml", split(v1, 100-v1))
	return fmt.Sprintf("split %d:%d", v1, 100-v1)
}

func (c *churn) route() string {
	n := c.rand.IntN(1000)
	c.WriteObject("route.yaml", fmt.Sprintf(`
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: split}
spec:
  parentRefs: [{group: "", kind: Service, name: api}]
  rules:
  - matches: [{path: {value: /other}}, {headers: [{name: x-n, value: "%[1]d"}]}]
    backendRefs: [{name: api-v2, port: 80}]
  - filters: [{type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: x-n, value: "%[1]d"}]}}]
    timeouts: {request: %[2]ds}
    backendRefs: [{name: api, port: 80}]
`, n, 5+n%10))
	return fmt.Sprintf("route with rules, %d", n)
}

func (c *churn) noRoute() string {
	c.RemoveObject("route.yaml")
	return "no route"
}

func (c *churn) policy() string {
	callers := []string{"web", "db"}
	if c.rand.IntN(2) == 0 {
		callers = append(callers, fmt.Sprintf("somebody-%d", c.rand.IntN(100)))
	}
	c.WriteObject("policy.yaml", allow("api", callers...)+allow("db", "nobody"))
	return fmt.Sprintf("policy for %v", callers)
}

func (c *churn) noPolicy() string {
	c.RemoveObject("policy.yaml")
	return "no policy"
}

func (c *churn) config() string {
	text := fmt.Sprintf(`
apiVersion: mesh.heddle.dev/v1alpha1
kind: MeshConfig
metadata: {name: mesh}
spec:
  tracing: {samplingPercent: %d}
  accessLog: %t
  locality: {preferZone: %t}
  connectTimeout: %ds
`, c.rand.IntN(100), c.rand.IntN(2) == 0, c.rand.IntN(2) == 0, 1+c.rand.IntN(5))
	c.WriteObject("config.yaml", text)
	return "MeshConfig" + strings.Join(strings.Fields(text)[6:], " ")
}

// endpoints takes the instances of one version out of the service, or puts them back.
func (c *churn) endpoints() string {
	selector := []string{"app: api", "app: api, version: v1", "app: api, version: v2"}[c.rand.IntN(3)]
	c.WriteObject("services.yaml", strings.Replace(shopObjects()["services.yaml"], "{selector: {app: api}", "{selector: {"+selector+"}", 1))
	return "endpoints " + selector
}

// replica stops and starts a replica. One goes at a time: of each version one must be there.
func (c *churn) replica() string {
	select {
	case err := <-c.restarted:
		if err != nil {
			c.t.Error(err)
		}
	default:
		return "no replica: the last one is not back"
	}
	name := []string{"api-v1-0", "api-v1-1", "api-v2-0", "api-v2-1"}[c.rand.IntN(4)]
	go func() {
		_, err := c.Heddle("restart", name)
		c.restarted <- err
	}()
	c.restarts++
	return "restart " + name
}

// others adds or removes a service with a route that nobody calls.
func (c *churn) others() string {
	name := fmt.Sprintf("other-%d", c.rand.IntN(5))
	if c.rand.IntN(2) == 0 {
		c.RemoveObject(name + ".yaml")
		return "without " + name
	}
	c.WriteObject(name+".yaml", service(name, "app: api", fmt.Sprintf("{name: http, port: %d, targetPort: 8080}", 80+c.rand.IntN(10))))
	return "with " + name
}
