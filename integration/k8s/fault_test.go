//go:build k8s

package k8s

import (
	"fmt"
	"strings"
	"testing"
)

// TestControlPlaneRestart replaces every replica of the control plane under a load.
func TestControlPlaneRestart(t *testing.T) {
	ns := namespace(t, true)
	apply(t, ns, server("web", 2, "")+"---"+client("caller"))
	ready(t, ns, "deployment/web", "pod/caller")
	l := startLoad(t, ns, "caller", "http://web/", 100)
	restartMesh(t)
	// The new replicas serve changes: a pod that comes now is found and called.
	kubectl(t, "-n", ns, "rollout", "restart", "deployment/web")
	ready(t, ns, "deployment/web")
	l.unharmed()
}

// TestControlPlaneAway has no control plane at all: what runs goes on, and what is started
// meanwhile starts when it is back. The namespaces of the system need no webhook.
func TestControlPlaneAway(t *testing.T) {
	ns := namespace(t, true)
	apply(t, ns, server("web", 2, "")+"---"+client("caller"))
	ready(t, ns, "deployment/web", "pod/caller")
	l := startLoad(t, ns, "caller", "http://web/", 100)

	back := controlPlaneAway(t)
	t.Run("pods of the mesh are not made without a sidecar", func(t *testing.T) {
		out, err := tryApply(t, ns, client("late"))
		if err == nil || !strings.Contains(out, "inject.heddle.dev") {
			t.Errorf("%v: %s", err, out)
		}
	})
	t.Run("pods of the system are", func(t *testing.T) {
		kubectl(t, "-n", "kube-system", "rollout", "restart", "deployment/coredns")
		kubectl(t, "-n", "kube-system", "rollout", "status", "deployment/coredns", "--timeout=80s")
	})
	t.Run("a proxy that is killed comes back", func(t *testing.T) {
		pod := strings.Fields(kubectl(t, "-n", ns, "get", "pods", "-l", "app=web", "-o", "name"))[0]
		kubectl(t, "-n", ns, "rollout", "restart", "deployment/web") // waits for the webhook, like any other
		before := restarts(t, ns, pod)
		killProxy(t, ns, pod)
		eventually(t, "the sidecar's container is started anew and ready", func() (string, bool) {
			row := kubectl(t, "-n", ns, "get", pod, "-o", "wide")
			return row, restarts(t, ns, pod) > before && strings.Contains(row, "2/2")
		})
		eventually(t, "and serves by its last configuration", func() (string, bool) {
			a := get(t, ns, "caller", "http://web/")
			return fmt.Sprintf("%+v", a), a.Code == 200
		})
	})
	back()
	ready(t, ns, "deployment/web") // the rollout that waited goes on
	if r := l.finish(); r.Failed > r.OK/50 {
		t.Errorf("%d of %d requests failed, more than those under way at the killed proxy: %v", r.Failed, r.OK+r.Failed, r.Failures)
	}
}

// restarts counts the starts of a pod's sidecar after the first.
func restarts(t *testing.T, ns, pod string) int {
	t.Helper()
	var n int
	out := kubectl(t, "-n", ns, "get", pod, "-o", `jsonpath={.status.initContainerStatuses[?(@.name=="heddle-proxy")].restartCount}`)
	if _, err := fmt.Sscan(out, &n); err != nil {
		t.Fatalf("restarts of %s: %q", pod, out)
	}
	return n
}

// killProxy ends all of a pod's sidecar at once, as the kernel does when memory is short.
func killProxy(t *testing.T, ns, pod string) {
	killContainer(t, containerOf(t, ns, pod, "heddle-proxy"))
}

// TestToken has a pod ask for an identity with a token that is for somebody else.
func TestToken(t *testing.T) {
	ns := namespace(t, false) // it is its own sidecar
	apply(t, ns, `
apiVersion: v1
kind: Pod
metadata: {name: thief, labels: {app: thief}}
spec:
  restartPolicy: Always
  containers:
  - name: app
    image: `+heddleImage+`
    imagePullPolicy: Never
    args: [sidecar, --pod, --control-plane=heddle-controlplane.heddle-system.svc:15010]
    env:
    - {name: HEDDLE_POD_NAME, valueFrom: {fieldRef: {fieldPath: metadata.name}}}
    - {name: HEDDLE_POD_NAMESPACE, valueFrom: {fieldRef: {fieldPath: metadata.namespace}}}
    - {name: HEDDLE_POD_IPS, valueFrom: {fieldRef: {fieldPath: status.podIPs}}}
    - {name: HEDDLE_NODE_NAME, valueFrom: {fieldRef: {fieldPath: spec.nodeName}}}
    - {name: HEDDLE_SERVICE_ACCOUNT, value: default}
    - {name: HEDDLE_ROOTS, value: "`+roots(t)+`"}
    volumeMounts: [{name: run, mountPath: /run/heddle}, {name: token, mountPath: /var/run/secrets/heddle}]
  volumes:
  - {name: run, emptyDir: {medium: Memory}}
  - {name: token, projected: {sources: [{serviceAccountToken: {audience: somebody-else, path: token}}]}}
`)
	eventually(t, "the control plane refuses a token for another audience", func() (string, bool) {
		said, _ := tryKubectl(t, "-n", "heddle-system", "logs", "-l", "app.kubernetes.io/name=heddle-controlplane", "--tail=200")
		return said, strings.Contains(said, "refused an SVID") && strings.Contains(said, "audience")
	})
	said := kubectl(t, "-n", ns, "logs", "thief")
	if strings.Contains(said, "got an SVID") || strings.Contains(said, "eyJ") {
		t.Errorf("the thief said %s", said)
	}
}

// roots are the fingerprints that the webhook gives to pods.
func roots(t *testing.T) string {
	t.Helper()
	mesh := namespace(t, true)
	apply(t, mesh, client("honest"))
	out := kubectl(t, "-n", mesh, "get", "pod", "honest", "-o",
		`jsonpath={.spec.initContainers[?(@.name=="heddle-proxy")].env[?(@.name=="HEDDLE_ROOTS")].value}`)
	if len(out) < 64 {
		t.Fatalf("HEDDLE_ROOTS is %q", out)
	}
	return out
}
