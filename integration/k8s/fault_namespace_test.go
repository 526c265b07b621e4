//go:build k8s

package k8s

import (
	"fmt"
	"strings"
	"testing"
)

// TestNamespaceDeleted deletes a namespace that is called all the time: calls to it fail
// at once and for a reason that can be read, nothing of it stays in proxies, nobody else
// feels it, and it may come again.
func TestNamespaceDeleted(t *testing.T) {
	ns, doomed := namespace(t, true), "doomed"
	apply(t, ns, server("web", 2, "")+"---"+client("caller"))
	rise := func() {
		t.Helper()
		kubectl(t, "create", "namespace", doomed)
		kubectl(t, "label", "namespace", doomed, "heddle.dev/inject=enabled")
		apply(t, doomed, server("api", 2, "")+fmt.Sprintf(`
---
apiVersion: mesh.heddle.dev/v1alpha1
kind: AuthorizationPolicy
metadata: {name: only-caller}
spec: {targetRefs: [{kind: Service, name: api}], rules: [{from: [{namespace: %s, serviceAccount: caller}]}]}
`, ns))
		ready(t, doomed, "deployment/api")
		eventually(t, "it answers", func() (string, bool) {
			a := get(t, ns, "caller", "http://api.doomed/")
			return fmt.Sprintf("%+v", a), a.Code == 200
		})
	}
	t.Cleanup(func() { kubectl(t, "delete", "namespace", doomed, "--ignore-not-found", "--wait=false") })
	ready(t, ns, "deployment/web", "pod/caller")
	known := knownToControlPlane(t)
	rise()
	if now := knownToControlPlane(t); now[0] <= known[0] || now[1] <= known[1] {
		t.Errorf("with two pods and a Service more the control plane knows %v, and knew %v", now, known)
	}

	others, callers := startLoad(t, ns, "caller", "http://web/", 50), startLoad(t, ns, "caller", "http://api.doomed/", 50)
	kubectl(t, "delete", "namespace", doomed, "--timeout=80s")
	eventually(t, "its name is unknown", func() (string, bool) {
		a := get(t, ns, "caller", "http://api.doomed.svc.cluster.local/")
		return fmt.Sprintf("%+v", a), strings.Contains(a.Error, "no such host")
	})
	eventually(t, "no proxy holds anything of it", func() (string, bool) {
		held, err := runHeddle(t, "config", "caller", "-n", ns)
		return held, err == nil && strings.Contains(held, "web."+ns) && !strings.Contains(held, "."+doomed)
	})
	if proxies, err := runHeddle(t, "proxies"); err != nil || strings.Contains(proxies, doomed+"/") || !strings.Contains(proxies, ns+"/caller") {
		t.Errorf("heddle proxies: %v: %s", err, proxies)
	}
	eventually(t, "the control plane has forgotten it", func() (string, bool) {
		now := knownToControlPlane(t)
		return fmt.Sprintf("%v, before %v", now, known), now[0] <= known[0] && now[1] <= known[1]
	})
	r := callers.finish()
	if r.OK == 0 || r.Failed == 0 {
		t.Errorf("callers of what went got %+v", r)
	}
	for what, n := range r.Failures { // the cluster's own name server may be too busy to say that there is no such name
		if !strings.HasPrefix(what, "503 ") && !strings.Contains(what, "no such host") && !strings.Contains(what, "server misbehaving") {
			t.Errorf("%d callers of what went were told %q", n, what)
		}
	}
	others.unharmed()
	rise()
}

// knownToControlPlane are the numbers of services and workloads, summed over its replicas.
func knownToControlPlane(t *testing.T) [2]float64 {
	t.Helper()
	return [2]float64{controlPlaneSum(t, "heddle_mesh_services"), controlPlaneSum(t, "heddle_mesh_workloads")}
}
