//go:build k8s

package k8s

import (
	"context"
	"fmt"
	"strings"
	"testing"
)

// TestOnDemand has a caller in a namespace of 40 services, of which it uses two: one by its
// name, one by its address. Its proxy holds what leads to these, and so does the proxy of a
// second pod of its service account, which has used nothing, where the same replica of the
// control plane serves both.
func TestOnDemand(t *testing.T) {
	const idle = 40
	if out, err := install(t.Context(), "--set", "controlPlane.onDemand=true", "--set", "controlPlane.replicas=1"); err != nil {
		t.Fatalf("install: %v: %s", err, out)
	}
	t.Cleanup(func() {
		if out, err := install(context.WithoutCancel(t.Context())); err != nil {
			t.Errorf("install: %v: %s", err, out)
		}
	})
	ns := namespace(t, true)
	objects := server("web", 1, "") + "---" + server("caller", 2, "")
	for i := range idle {
		objects += fmt.Sprintf(`
---
apiVersion: v1
kind: Service
metadata: {name: idle-%d}
spec: {selector: {app: web}, ports: [{name: http, port: 80, targetPort: http}]}
`, i)
	}
	apply(t, ns, objects)
	ready(t, ns, "deployment/web", "deployment/caller")
	callers := strings.Fields(kubectl(t, "-n", ns, "get", "pods", "-l", "app=caller", "-o", "jsonpath={.items[*].metadata.name}"))
	clusters := func(pod string) int {
		t.Helper()
		return int(statistic{ns, pod, "envoy_cluster_manager_active_clusters", ""}.read(t))
	}
	// A pod is ready before all of its Services' slices say so.
	for _, service := range []string{"web", "idle-7"} {
		eventually(t, service+" has an endpoint", func() (string, bool) {
			out := kubectl(t, "-n", ns, "get", "endpointslices", "-l", "kubernetes.io/service-name="+service, "-o", "jsonpath={.items[*].endpoints[*].conditions.ready}")
			return out, out == "true"
		})
	}
	before := clusters(callers[0])
	if a := get(t, ns, callers[0], "http://web/"); a.Code != 200 {
		t.Errorf("the first request to a name: %+v", a)
	}
	address := kubectl(t, "-n", ns, "get", "service", "idle-7", "-o", "jsonpath={.spec.clusterIP}")
	if a := get(t, ns, callers[0], "http://"+address+"/"); a.Code != 200 {
		t.Errorf("the first request to an address: %+v", a)
	}
	// Two ports of web and one of idle-7: a cluster for each, and one for each address.
	for _, caller := range callers {
		eventually(t, caller+" holds what is used", func() (string, bool) {
			n := clusters(caller)
			return fmt.Sprint(n, " clusters, before ", before), n == before+6
		})
	}
	if before > idle/2 {
		t.Errorf("a proxy that has used nothing holds %d clusters", before)
	}
}
