//go:build k8s

package k8s

import (
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"
)

// ofControllers is what cannot be without the API server: in a cluster whose controllers
// elect leaders they end when they cannot renew their leases.
var ofControllers = []string{"kube-controller-manager", "kube-scheduler"}

// outage is how long the API server is away.
const outage = time.Minute

// TestAPIServerAway has no API server for a minute. Pods call each other all the time, a
// sidecar that is killed meanwhile comes back with the identity it had, and the control
// plane, which has nobody to lead and nothing to read, is there when the server is back.
func TestAPIServerAway(t *testing.T) {
	ns := namespace(t, true)
	apply(t, ns, server("web", 2, "")+"---"+server("single", 1, "")+"---"+client("caller"))
	ready(t, ns, "deployment/web", "deployment/single", "pod/caller")
	caller := containerOf(t, ns, "caller", "app")
	single := kubectl(t, "-n", ns, "get", "pods", "-l", "app=single", "-o", "jsonpath={.items[0].metadata.name}")
	proxy := containerOf(t, ns, single, "heddle-proxy")
	restartsBefore := controlPlaneRestarts(t)
	l := caller.startLoad(t, "http://web/", 100)

	t.Cleanup(func() { apiServerBack(t) })
	for _, program := range append([]string{"kube-apiserver"}, ofControllers...) {
		if err := c.Hold(program); err != nil {
			t.Fatal(err)
		}
	}
	away := time.Now()
	killContainer(t, proxy)
	eventually(t, "the killed sidecar serves again, without the API server", func() (string, bool) {
		a := caller.get(t, "http://single/")
		return fmt.Sprintf("%+v", a), a.Code == 200
	})
	for range time.Tick(time.Second) {
		if a := caller.get(t, "http://web/"); a.Code != 200 {
			t.Errorf("%s after the API server went: %+v", time.Since(away).Round(time.Second), a)
		}
		if time.Since(away) > outage {
			break
		}
	}
	apiServerBack(t)
	kubeletsBack(t)
	// What changes from now on is seen: all of web's pods are replaced.
	kubectl(t, "-n", ns, "rollout", "restart", "deployment/web")
	ready(t, ns, "deployment/web")
	l.unharmed()
	if restarts(t, ns, "pod/"+single) != 1 {
		t.Errorf("the sidecar of %s was not killed and started again", single)
	}
	if n := controlPlaneRestarts(t); n != restartsBefore {
		t.Errorf("the control plane restarted %d times", n-restartsBefore)
	}
	apply(t, ns, client("late"))
	ready(t, ns, "pod/late")
	if a := get(t, ns, "late", "http://single/"); a.Code != 200 {
		t.Errorf("a pod that came afterwards: %+v", a)
	}
}

// apiServerBack starts the API server and the controllers, unless they run, and waits.
func apiServerBack(t *testing.T) {
	t.Helper()
	if err := c.Release("kube-apiserver"); err != nil {
		t.Error(err)
	}
	eventually(t, "the API server is ready", func() (string, bool) {
		out, err := tryKubectl(t, "get", "--raw=/readyz")
		return out, err == nil
	})
	for _, program := range ofControllers {
		if err := c.Release(program); err != nil {
			t.Error(err)
		}
	}
}

// kubeletsBack waits until each node runs new pods again. After a minute of refusals a
// kubelet asks the API server again as late as after another (client-go's reflector backs
// off to 30 s, and as much again by chance).
func kubeletsBack(t *testing.T) {
	t.Helper()
	outside := namespace(t, false)
	for i := 1; i <= 3; i++ {
		node := fmt.Sprintf("n%d", i)
		kubectl(t, "wait", "--for=condition=Ready", "node/"+node, "--timeout=60s")
		apply(t, outside, strings.Replace(client("on-"+node), "spec:", "spec:\n  nodeName: "+node, 1))
		ready(t, outside, "pod/on-"+node)
	}
}

// controlPlaneRestarts counts the restarts of all replicas.
func controlPlaneRestarts(t *testing.T) (sum int) {
	t.Helper()
	out := kubectl(t, "-n", "heddle-system", "get", "pods", "-l", "app.kubernetes.io/name=heddle-controlplane", "-o", "jsonpath={.items[*].status.containerStatuses[*].restartCount}")
	for n := range strings.FieldsSeq(out) {
		i, err := strconv.Atoi(n)
		if err != nil {
			t.Fatalf("restarts %q", out)
		}
		sum += i
	}
	return sum
}
