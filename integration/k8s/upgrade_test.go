//go:build k8s

package k8s

import (
	"context"
	"strings"
	"testing"
)

// TestUpgrade brings the control plane to another image and other values under a load, and
// then a second revision beside it. The values of the installation stay throughout.
func TestUpgrade(t *testing.T) {
	const next = "heddle.local/heddle:next"
	for i := 1; i <= 3; i++ {
		onNode(t, i, "ctr", "--namespace=k8s.io", "images", "tag", "--force", heddleImage, next)
	}
	ns := namespace(t, true)
	apply(t, ns, server("web", 2, "")+"---"+client("caller"))
	ready(t, ns, "deployment/web", "pod/caller")
	t.Cleanup(func() {
		if out, err := install(context.WithoutCancel(t.Context())); err != nil {
			t.Errorf("install: %v: %s", err, out)
		}
	})
	upgrade := func(args ...string) (string, error) {
		t.Helper()
		out, err := c.In(t.Context(), append([]string{heddle, "upgrade", "--timeout=90s"}, args...)...).CombinedOutput()
		return string(out), err
	}

	l := startLoad(t, ns, "caller", "http://web/", 100)
	out, err := upgrade("--set", "image.name="+next, "--set", "controlPlane.replicas=3")
	if err != nil || strings.Count(out, "configured Deployment heddle-system/heddle-controlplane") != 2 {
		t.Fatalf("upgrade: %v: %s", err, out)
	}
	if !strings.Contains(out, "sidecars are not of their control plane's version") || !strings.Contains(out, "kubectl rollout restart") {
		t.Errorf("it does not say what is left to do: %s", out)
	}
	kubectl(t, "-n", ns, "rollout", "restart", "deployment/web")
	ready(t, ns, "deployment/web")
	if image := kubectl(t, "-n", ns, "get", "pod", podOf(t, ns, "web"), "-o", "jsonpath={.spec.initContainers[*].image}"); !strings.Contains(image, next) {
		t.Errorf("after a restart the sidecar is of %s", image)
	}
	l.unharmed()

	// What is not said again stays.
	replicas := func() string {
		return kubectl(t, "-n", "heddle-system", "get", "deployments", "-o", `jsonpath={range .items[*]}{.metadata.name}={.spec.replicas} {end}`)
	}
	if out, err := upgrade("--dry-run"); err != nil || strings.Contains(out, "configured Deployment") || replicas() != "heddle-controlplane=3" {
		t.Errorf("again: %v, %s: %s", err, replicas(), out)
	}
	if out, err := c.In(t.Context(), heddle, "install", "--dry-run", "--set", "controlPlane.replicas=1").CombinedOutput(); err != nil || !strings.Contains(string(out), "the chart's again: image.name; heddle upgrade keeps them") {
		t.Errorf("install over it: %v: %s", err, out)
	}
	t.Run("refused", func(t *testing.T) {
		if out, err := upgrade("--set", "trustDomain=other.example"); err == nil || !strings.Contains(out, "a trust domain is for ever") {
			t.Errorf("another trust domain: %v: %s", err, out)
		}
		if out, err := upgrade("--namespace", "default"); err == nil || !strings.Contains(out, "has no control plane to upgrade") {
			t.Errorf("of nothing: %v: %s", err, out)
		}
		kubectl(t, "label", "namespace", ns, "heddle.dev/rev=nowhere")
		defer kubectl(t, "label", "namespace", ns, "heddle.dev/rev-")
		if out, err := upgrade("--set", "controlPlane.replicas=1"); err == nil || !strings.Contains(out, "that revision is not installed") || replicas() != "heddle-controlplane=3" {
			t.Errorf("with an error in the cluster: %v, %s: %s", err, replicas(), out)
		}
		if out, err := upgrade("--dry-run", "--force"); err != nil {
			t.Errorf("by force: %v: %s", err, out)
		}
	})
	t.Run("revision", func(t *testing.T) {
		if out, err := upgrade("--revision", "later"); err != nil || !strings.Contains(out, "heddle.dev/rev=later") {
			t.Fatalf("%v: %s", err, out)
		}
		if got := replicas(); got != "heddle-controlplane=3 heddle-controlplane-later=3" {
			t.Errorf("the second has %s", got)
		}
		kubectl(t, "label", "namespace", ns, "heddle.dev/rev=later")
		kubectl(t, "-n", ns, "rollout", "restart", "deployment/web")
		ready(t, ns, "deployment/web")
		if by := kubectl(t, "-n", ns, "get", "pod", podOf(t, ns, "web"), "-o", `jsonpath={.metadata.annotations.heddle\.dev/injected}`); by != "later" {
			t.Errorf("injected by %s", by)
		}
		if a := get(t, ns, "caller", "http://web/"); a.Code != 200 {
			t.Errorf("from the one to the other: %+v", a)
		}
		if out, err := c.In(t.Context(), heddle, "uninstall", "--set", "revision=later", "--timeout=80s").CombinedOutput(); err != nil {
			t.Errorf("uninstall: %v: %s", err, out)
		}
		if left := kubectl(t, "-n", "heddle-system", "get", "all,configmaps,secrets,leases", "-o", "name"); strings.Contains(left, "later") {
			t.Errorf("left behind: %s", left)
		}
	})
}
