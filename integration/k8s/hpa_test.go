//go:build k8s

package k8s

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"
)

// scaler scales web by what its application uses, and by what the pod does as a whole.
const scaler = `
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata: {name: web}
spec:
  scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: web}
  minReplicas: 1
  maxReplicas: 4
  metrics:
  - {type: ContainerResource, containerResource: {name: cpu, container: app, target: {type: Utilization, averageUtilization: 60}}}
  - {type: Resource, resource: {name: cpu, target: {type: Utilization, averageUtilization: 400}}}
  behavior: {scaleDown: {stabilizationWindowSeconds: 0}}
`

// TestHPA has a HorizontalPodAutoscaler scale a service of the mesh by a real
// metrics-server, up under load and down after it; no request fails for either.
func TestHPA(t *testing.T) {
	if err := c.ServeMetrics(t.Context(), t.Output()); err != nil {
		t.Fatal(err)
	}
	ns := namespace(t, true)
	apply(t, ns, server("web", 1, "        resources: {requests: {cpu: 20m}}")+"---"+client("caller"))
	ready(t, ns, "deployment/web", "pod/caller")
	first := podOf(t, ns, "web")
	apply(t, ns, scaler)

	// The two metrics are what the API server tells of a pod: its application's share, and
	// its sidecar's beside it.
	within(t, 3*time.Minute, "both metrics are known", scaled(t, ns, func(s scaling) bool { return s.active() && s.measured() == 2 }))
	low := startLoad(t, ns, "caller", "http://web/", 5)
	high := startLoad(t, ns, "caller", "http://web/", 200)
	within(t, 4*time.Minute, "the load scales up", scaled(t, ns, func(s scaling) bool { return s.Status.CurrentReplicas >= 3 }))
	ready(t, ns, "deployment/web")
	eventually(t, "a pod that was added answers", func() (string, bool) {
		a := get(t, ns, "caller", "http://web/")
		return a.Body, a.Code == 200 && a.served(t).Workload != first
	})
	if r := high.unharmed(); len(r.By) < 2 {
		t.Errorf("no pod that was added answers: %v", r.By)
	}
	within(t, 4*time.Minute, "without it the service scales down", scaled(t, ns, func(s scaling) bool { return s.Status.CurrentReplicas == 1 }))
	eventually(t, "one pod is left", func() (string, bool) {
		pods := kubectl(t, "-n", ns, "get", "pods", "-l", "app=web", "-o", "name")
		return pods, strings.Count(pods, "pod/") == 1
	})
	low.unharmed()
}

// scaling is what an autoscaler tells of itself.
type scaling struct {
	Status struct {
		CurrentReplicas int
		CurrentMetrics  []struct {
			Resource          struct{ Current usage }
			ContainerResource struct{ Current usage }
		}
		Conditions []struct{ Type, Status, Message string }
	}
}

type usage struct {
	AverageUtilization *int
	AverageValue       string
}

// active is whether the autoscaler can compute a number of replicas.
func (s scaling) active() bool {
	for _, c := range s.Status.Conditions {
		if c.Type == "ScalingActive" {
			return c.Status == "True"
		}
	}
	return false
}

// measured is the number of metrics that have a value.
func (s scaling) measured() (n int) {
	for _, m := range s.Status.CurrentMetrics {
		if m.Resource.Current.AverageUtilization != nil || m.ContainerResource.Current.AverageUtilization != nil {
			n++
		}
	}
	return n
}

// scaled reads the autoscaler of web.
func scaled(t *testing.T, namespace string, ok func(scaling) bool) func() (string, bool) {
	return func() (string, bool) {
		out := kubectl(t, "-n", namespace, "get", "hpa", "web", "-o", "json")
		var s scaling
		if err := json.Unmarshal([]byte(out), &s); err != nil {
			t.Fatalf("%s: %v", out, err)
		}
		return fmt.Sprintf("%+v", s.Status), ok(s)
	}
}
