//go:build k8s

package k8s

import (
	"strings"
	"testing"
)

// repaired has pods that start while the plugin is not in the node's configuration: their
// sidecars refuse to run. When it is back, they are made anew, or told of.
func repaired(t *testing.T) {
	ns := namespace(t, true)
	const set = "daemonset/heddle-cni"
	kubectl(t, "-n", "kube-system", "patch", set, "-p", `{"spec": {"template": {"spec": {"nodeSelector": {"nowhere": "yes"}}}}}`)
	kubectl(t, "-n", "kube-system", "wait", "--for=delete", "pod", "-l", "app.kubernetes.io/name=heddle-cni", "--timeout=80s")
	if now := onNode(t, 1, "cat", conflist); !strings.Contains(now, "heddle-cni") {
		t.Fatalf("the plugin is gone with a pod of a DaemonSet that stays: %s", now)
	}
	// As another tool's installer leaves it.
	onNode(t, 1, "sed", "-i", `s/{"type":"heddle-cni".*}/{"type": "tuning"}/`, conflist)
	if now := onNode(t, 1, "cat", conflist); strings.Contains(now, "heddle-cni") {
		t.Fatalf("the plugin is still chained: %s", now)
	}
	on1 := "      nodeSelector: {kubernetes.io/hostname: n1}\n"
	apply(t, ns, server("web", 1, on1)+"---"+strings.Replace(client("alone"), "serviceAccountName", "nodeSelector: {kubernetes.io/hostname: n1}\n  serviceAccountName", 1))
	for _, pod := range []string{"pod/alone", kubectl(t, "-n", ns, "get", "pods", "-l", "app=web", "-o", "name")} {
		eventually(t, pod+" refuses to run", func() (string, bool) {
			saw := kubectl(t, "-n", ns, "get", pod, "-o", "jsonpath={.status.initContainerStatuses[0]} {.status.containerStatuses}")
			if strings.Contains(saw, `"started":true`) {
				t.Fatalf("a container of %s runs: %s", pod, saw)
			}
			return saw, strings.Contains(saw, `"exitCode":79`) && strings.Contains(saw, "the capture rules are not there")
		})
	}
	kubectl(t, "-n", "kube-system", "patch", set, "--type=json", "-p", `[{"op": "remove", "path": "/spec/template/spec/nodeSelector/nowhere"}]`)
	kubectl(t, "-n", "kube-system", "rollout", "status", set, "--timeout=80s")
	ready(t, ns, "deployment/web")
	eventually(t, "the pod that nothing makes anew is told of", func() (string, bool) {
		saw := kubectl(t, "-n", ns, "get", "events", "--field-selector=reason=NotCaptured")
		return saw, strings.Contains(saw, "pod/alone")
	})
	kubectl(t, "-n", ns, "get", "pod", "alone")
	if now := onNode(t, 1, "cat", conflist); !strings.Contains(now, "tuning") {
		t.Errorf("what the other tool wrote is gone: %s", now)
	}
}

// rewritten has the network's own installer write its configuration again.
func rewritten(t *testing.T, original string) {
	cmd, err := c.OnNode(t.Context(), 1, "tee", conflist)
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stdin = strings.NewReader(original)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	onNode(t, 1, "rm", "/opt/cni/bin/heddle-cni")
	eventually(t, "the plugin is in place again", func() (string, bool) {
		cmd, err := c.OnNode(t.Context(), 1, "ls", "/opt/cni/bin/heddle-cni")
		if err != nil {
			t.Fatal(err)
		}
		now := onNode(t, 1, "cat", conflist)
		return now, cmd.Run() == nil && strings.Contains(now, "heddle-cni")
	})
	ns := namespace(t, true)
	apply(t, ns, server("web", 1, "      nodeSelector: {kubernetes.io/hostname: n1}\n"))
	ready(t, ns, "deployment/web")
}

// undecided has a plugin that cannot reach the API server: what may be of the mesh waits,
// and pods of the system start. The route stands in the way of the node's own programs; the
// kubelet uses another address.
func undecided(t *testing.T) {
	ns := namespace(t, false)
	address := kubectl(t, "-n", "default", "get", "service", "kubernetes", "-o", "jsonpath={.spec.clusterIP}")
	onNode(t, 1, "ip", "route", "add", "unreachable", address)
	restored := false
	restore := func() {
		if !restored {
			onNode(t, 1, "ip", "route", "del", "unreachable", address)
		}
		restored = true
	}
	defer restore()
	on1 := strings.Replace(client("plain"), "serviceAccountName", "nodeSelector: {kubernetes.io/hostname: n1}\n  serviceAccountName", 1)
	apply(t, ns, on1)
	apply(t, "kube-system", strings.ReplaceAll(on1, "plain", "cni-test-system"))
	t.Cleanup(func() {
		kubectl(t, "-n", "kube-system", "delete", "pod/cni-test-system", "serviceaccount/cni-test-system", "--wait=false")
	})
	ready(t, "kube-system", "pod/cni-test-system")
	eventually(t, "the kubelet is told why", func() (string, bool) {
		saw := kubectl(t, "-n", ns, "get", "events", "--field-selector=involvedObject.name=plain")
		return saw, strings.Contains(saw, "cannot tell whether pod "+ns+"/plain is of the mesh")
	})
	if phase := kubectl(t, "-n", ns, "get", "pod", "plain", "-o", "jsonpath={.status.phase}"); phase != "Pending" {
		t.Errorf("the pod is %s", phase)
	}
	restore()
	ready(t, ns, "pod/plain")
}
