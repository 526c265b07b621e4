//go:build k8s

package k8s

import (
	"strings"
	"testing"
)

// TestUserTools: kubectl's exec, logs and debug are about the application, and work on pods of the mesh as on others.
func TestUserTools(t *testing.T) {
	ns := namespace(t, true)
	apply(t, ns, server("web", 1, "")+"---"+client("caller"))
	ready(t, ns, "deployment/web", "pod/caller")

	if out := kubectl(t, "-n", ns, "exec", "caller", "--", "/app", "get", "http://web/"); !strings.Contains(out, `"Code":200`) && !strings.Contains(out, `"code":200`) {
		t.Errorf("exec without a container's name: %s", out)
	}
	if out := kubectl(t, "-n", ns, "logs", "deployment/web"); !strings.Contains(out, `Defaulted container "app"`) {
		t.Errorf("logs without a container's name: %s", out)
	}
	if out := kubectl(t, "-n", ns, "logs", "deployment/web", "-c", "heddle-proxy"); !strings.Contains(out, "got an SVID") {
		t.Errorf("logs of the proxy: %s", out)
	}
	t.Run("debug", func(t *testing.T) {
		kubectl(t, "-n", ns, "debug", "caller", "--image="+appImage, "--image-pull-policy=IfNotPresent", "--profile=general", "-c", "look", "--", "/app", "get", "http://web/")
		eventually(t, "the debug container has called", func() (string, bool) {
			out, err := tryKubectl(t, "-n", ns, "logs", "caller", "-c", "look")
			answers := answersIn(out)
			return out, err == nil && len(answers) == 1 && answers[0].Code == 200
		})
		if a := get(t, ns, "caller", "http://web/"); a.Code != 200 {
			t.Errorf("afterwards: %+v", a)
		}
	})
}

// TestDrain drains a node under a load: the sidecars neither hold that up nor lose a
// request, and a PodDisruptionBudget counts as without them.
func TestDrain(t *testing.T) {
	ns := namespace(t, true)
	apply(t, ns, server("web", 3, `
      topologySpreadConstraints: [{maxSkew: 1, topologyKey: kubernetes.io/hostname, whenUnsatisfiable: DoNotSchedule, labelSelector: {matchLabels: {app: web}}}]
---
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata: {name: web}
spec: {minAvailable: 3, selector: {matchLabels: {app: web}}}
`)+"---"+onNamed("n1", client("caller")))
	ready(t, ns, "deployment/web", "pod/caller")
	before := kubectl(t, "-n", ns, "get", "pods", "-l", "app=web", "--field-selector=spec.nodeName=n2", "-o", "name")
	l := startLoad(t, ns, "caller", "http://web/", 100)

	drain := []string{"drain", "n2", "--ignore-daemonsets", "--delete-emptydir-data", "--force", "--pod-selector=app=web"}
	t.Cleanup(func() { kubectl(t, "uncordon", "n2") })
	out, err := tryKubectl(t, append(drain, "--timeout=7s")...)
	if err == nil || !strings.Contains(out, "violate the pod's disruption budget") {
		t.Errorf("against the budget: %v: %s", err, out)
	}
	if now := kubectl(t, "-n", ns, "get", "pods", "-l", "app=web", "--field-selector=spec.nodeName=n2", "-o", "name"); now != before {
		t.Errorf("against the budget %s became %s", before, now)
	}
	kubectl(t, "-n", ns, "patch", "poddisruptionbudget", "web", "--patch", `{"spec": {"minAvailable": 2}}`)
	kubectl(t, append(drain, "--timeout=80s")...)
	if left := kubectl(t, "-n", ns, "get", "pods", "-l", "app=web", "--field-selector=spec.nodeName=n2", "-o", "name"); left != "" {
		t.Errorf("after the drain n2 runs %s", left)
	}
	if r := l.unharmed(); len(r.By) < 1 {
		t.Errorf("answered by %v", r.By)
	}
}
