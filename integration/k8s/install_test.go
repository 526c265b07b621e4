//go:build k8s

package k8s

import (
	"strings"
	"testing"
)

// TestRevision runs a second revision of the control plane beside the first: namespaces
// choose, pods of both call each other, and the second goes without a trace.
func TestRevision(t *testing.T) {
	if out, err := install(t.Context(), "--set", "revision=canary"); err != nil {
		t.Fatalf("install: %v: %s", err, out)
	}
	removed := false
	remove := func() {
		if removed {
			return
		}
		removed = true
		if out, err := c.In(t.Context(), heddle, "uninstall", "--set", "revision=canary", "--timeout=80s").CombinedOutput(); err != nil {
			t.Errorf("uninstall: %v: %s", err, out)
		}
	}
	defer remove()
	ns := namespace(t, true)
	apply(t, ns, server("web", 1, ""))
	ready(t, ns, "deployment/web")
	kubectl(t, "label", "namespace", ns, "heddle.dev/rev=canary")
	apply(t, ns, client("caller"))
	ready(t, ns, "pod/caller")
	if by := kubectl(t, "-n", ns, "get", "pod", "caller", "-o", `jsonpath={.metadata.annotations.heddle\.dev/injected}`); by != "canary" {
		t.Errorf("the pod was injected by revision %q", by)
	}
	if a := get(t, ns, "caller", "http://web/"); a.Code != 200 {
		t.Errorf("from one revision to the other: %+v", a)
	}
	if out, err := c.In(t.Context(), heddle, "uninstall", "--timeout=80s").CombinedOutput(); err == nil || !strings.Contains(string(out), "revision canary is installed") {
		t.Errorf("uninstall of the default revision before the other: %v: %s", err, out)
	}
	remove()
	kubectl(t, "-n", ns, "delete", "pod", "caller", "--grace-period=1") // it has no control plane any more, and heddle upgrade would say so
	for _, kinds := range []string{"deployments,services,secrets,leases,serviceaccounts,roles,rolebindings,pdb", "clusterroles,clusterrolebindings,mutatingwebhookconfigurations,validatingwebhookconfigurations"} {
		for left := range strings.Lines(kubectl(t, "get", kinds, "-A", "-o", "name")) {
			if strings.Contains(left, "canary") {
				t.Errorf("left behind: %s", left)
			}
		}
	}
}

// TestInstallTwice applies the same again, and values that are wrong.
func TestInstallTwice(t *testing.T) {
	out, err := c.In(t.Context(), heddle, "install", "--dry-run=server").CombinedOutput()
	if err != nil || !strings.Contains(string(out), "Deployment heddle-system/heddle-controlplane") {
		t.Errorf("%v: %s", err, out)
	}
	for set, says := range map[string]string{
		"image.nmae=x":                "there is no value image.nmae",
		"controlPlane.replicas=three": "it must be a number",
		"nothing":                     "want PATH=VALUE",
	} {
		out, err := c.In(t.Context(), heddle, "install", "--set", set).CombinedOutput()
		if err == nil || !strings.Contains(string(out), says) {
			t.Errorf("--set %s: %v: %s", set, err, out)
		}
	}
}
