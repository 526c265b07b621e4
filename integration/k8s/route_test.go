//go:build k8s

package k8s

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
)

// TestRoute splits requests by an HTTPRoute of the cluster, and changes it under a load.
func TestRoute(t *testing.T) {
	ns := namespace(t, true)
	apply(t, ns, server("v1", 1, "")+"---"+server("v2", 1, "")+"---"+client("caller")+`
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: v1}, ports: [{name: http, port: 80, targetPort: http}]}
`)
	ready(t, ns, "deployment/v1", "deployment/v2", "pod/caller")
	l := startLoad(t, ns, "caller", "http://web/", 100)
	for _, weights := range [][2]int{{1, 0}, {50, 50}, {0, 1}} {
		apply(t, ns, fmt.Sprintf(`
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: web}
spec:
  parentRefs: [{group: "", kind: Service, name: web}]
  rules: [{backendRefs: [{name: v1, port: 80, weight: %d}, {name: v2, port: 80, weight: %d}]}]
`, weights[0], weights[1]))
		eventually(t, fmt.Sprintf("weights %v hold", weights), func() (string, bool) {
			seen := map[string]int{}
			for _, a := range inPod(t, ns, "caller", "get", "http://web/", "http://web/", "http://web/", "http://web/", "http://web/", "http://web/", "http://web/", "http://web/") {
				if a.Code == 200 {
					seen[a.served(t).Version]++
				}
			}
			return fmt.Sprint(seen), seen["v1"] > 0 == (weights[0] > 0) && seen["v2"] > 0 == (weights[1] > 0)
		})
	}
	t.Run("status", func(t *testing.T) { routeStatus(t, ns) })
	if r := l.unharmed(); r.Versions["v1"] == 0 || r.Versions["v2"] == 0 {
		t.Errorf("answered by %v", r.Versions)
	}
	kubectl(t, "-n", ns, "delete", "httproute", "web")
	eventually(t, "without the route it is the Service's own pods", func() (string, bool) {
		a := get(t, ns, "caller", "http://web/")
		return fmt.Sprintf("%+v", a), a.Code == 200 && a.served(t).Version == "v1"
	})
}

// condition is one of an object's status.
type condition struct {
	Type, Status, Reason, Message, LastTransitionTime string
	ObservedGeneration                                int64
}

// routeConditions are those of a route at its only parent, by type.
func routeConditions(t *testing.T, namespace, name string) (generation int64, out map[string]condition) {
	t.Helper()
	var route struct {
		Metadata struct{ Generation int64 }
		Status   struct {
			Parents []struct {
				ControllerName string
				Conditions     []condition
			}
		}
	}
	if err := json.Unmarshal([]byte(kubectl(t, "-n", namespace, "get", "httproute", name, "-o", "json")), &route); err != nil {
		t.Fatal(err)
	}
	out = map[string]condition{}
	if len(route.Status.Parents) == 1 && route.Status.Parents[0].ControllerName == "mesh.heddle.dev/controller" {
		for _, c := range route.Status.Parents[0].Conditions {
			out[c.Type] = c
		}
	}
	return route.Metadata.Generation, out
}

// routeStatus shows that the status tells the truth, of all replicas' proxies together.
func routeStatus(t *testing.T, ns string) {
	eventually(t, "the route is live", func() (string, bool) {
		generation, have := routeConditions(t, ns, "web")
		ok := have["Accepted"].Status == "True" && have["ResolvedRefs"].Status == "True" && have["Programmed"].Status == "True"
		for _, c := range have {
			ok = ok && c.ObservedGeneration == generation
		}
		return fmt.Sprintf("generation %d: %+v", generation, have), ok && strings.HasPrefix(have["Programmed"].Message, "live on ")
	})
	apply(t, ns, `
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: broken}
spec:
  parentRefs: [{group: "", kind: Service, name: web}]
  rules: [{matches: [{path: {type: PathPrefix, value: /broken}}], backendRefs: [{name: nobody, port: 80}]}]
`)
	eventually(t, "a route to nobody says so", func() (string, bool) {
		_, have := routeConditions(t, ns, "broken")
		return fmt.Sprintf("%+v", have), have["ResolvedRefs"].Status == "False" && have["ResolvedRefs"].Reason == "BackendNotFound"
	})
	kubectl(t, "-n", ns, "delete", "httproute", "broken")
}
