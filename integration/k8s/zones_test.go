//go:build k8s

package k8s

import (
	"fmt"
	"strings"
	"testing"
)

// TestZones has callers and a service with a pod in each of three zones: everybody stays at
// home. When one caller is left, it uses all of the service's pods alike.
func TestZones(t *testing.T) {
	ns := namespace(t, true)
	spread := func(name string) string {
		return server(name, 3, fmt.Sprintf(
			"      topologySpreadConstraints: [{maxSkew: 1, topologyKey: topology.kubernetes.io/zone, whenUnsatisfiable: DoNotSchedule, labelSelector: {matchLabels: {app: %s}}}]", name))
	}
	apply(t, ns, spread("web")+"---"+spread("caller"))
	ready(t, ns, "deployment/web", "deployment/caller")
	home := map[string]string{} // the pod of web, by node
	for pod, node := range nodesOf(t, ns, "web") {
		home[node] = pod
	}
	callers := nodesOf(t, ns, "caller")
	if len(home) != 3 || len(callers) != 3 {
		t.Fatalf("pods are on %v and %v", home, callers)
	}
	for caller, node := range callers {
		eventually(t, caller+" on "+node+" is answered from there", func() (string, bool) {
			by := answering(t, ns, caller)
			return fmt.Sprint(by), len(by) == 1 && by[home[node]] > 0
		})
	}
	kubectl(t, "-n", ns, "scale", "deployment/caller", "--replicas=1")
	eventually(t, "one caller is left, and uses all of web", func() (string, bool) {
		left := nodesOf(t, ns, "caller")
		if len(left) > 1 {
			return fmt.Sprint(left), false
		}
		by := map[string]int{}
		for caller := range left {
			by = answering(t, ns, caller)
		}
		even := len(by) == 3
		for _, n := range by { // 67 are expected, with a deviation of 7
			even = even && n > 30
		}
		return fmt.Sprint(by), even
	})
}

// nodesOf are the nodes of an application's pods, by pod.
func nodesOf(t *testing.T, ns, app string) map[string]string {
	t.Helper()
	out := map[string]string{}
	for line := range strings.Lines(kubectl(t, "-n", ns, "get", "pods", "-l", "app="+app, "-o",
		`jsonpath={range .items[*]}{.metadata.name} {.spec.nodeName}{"\n"}{end}`)) {
		if pod, node, ok := strings.Cut(strings.TrimSpace(line), " "); ok {
			out[pod] = node
		}
	}
	return out
}

// answering counts who answers 200 requests of a pod to web.
func answering(t *testing.T, ns, pod string) map[string]int {
	t.Helper()
	r := startLoad(t, ns, pod, "http://web/", 1000, "-count", "200").wait()
	if r.Failed > 0 {
		t.Errorf("%s: %d failed: %v", pod, r.Failed, r.Failures)
	}
	return r.By
}
