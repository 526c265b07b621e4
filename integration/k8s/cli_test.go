//go:build k8s

package k8s

import (
	"context"
	"strings"
	"testing"
)

// runHeddle runs a command of heddle against the cluster, as a user beside kubectl does.
func runHeddle(t *testing.T, args ...string) (out string, err error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	cmd := c.In(ctx, append([]string{heddle}, args...)...)
	cmd.Env = append(cmd.Env, "HEDDLE_CONTROL_PLANE=kubernetes")
	data, err := cmd.CombinedOutput()
	return string(data), err
}

// TestCommands uses the commands of one machine on the cluster.
func TestCommands(t *testing.T) {
	ns := namespace(t, true)
	apply(t, ns, server("web", 2, "")+"---"+server("next", 1, "")+"---"+client("caller"))
	ready(t, ns, "deployment/web", "deployment/next", "pod/caller")

	must := func(args ...string) string {
		t.Helper()
		out, err := runHeddle(t, args...)
		if err != nil {
			t.Fatalf("heddle %s: %v: %s", strings.Join(args, " "), err, out)
		}
		return out
	}
	proxies := must("proxies")
	for _, pod := range []string{"caller", "web-", "next-"} {
		if !strings.Contains(proxies, ns+"/"+pod) {
			t.Errorf("heddle proxies lacks %s/%s*:\n%s", ns, pod, proxies)
		}
	}
	must("routes", "split", "web", "web=0", "next=100", "-n", ns, "--wait")
	if a := get(t, ns, "caller", "http://web/"); a.Code != 200 || a.served(t).Version != "next" {
		t.Errorf("after the split: %+v", a)
	}
	if list := must("routes", "-n", ns); !strings.Contains(list, "next") {
		t.Errorf("heddle routes:\n%s", list)
	}
	if held := must("config", "caller", "-n", ns); !strings.Contains(held, "web."+ns+":80") {
		t.Errorf("heddle config:\n%s", held)
	}
	must("routes", "undo", "web", "-n", ns, "--wait")
	if a := get(t, ns, "caller", "http://web/"); a.Code != 200 || a.served(t).Version != "web" {
		t.Errorf("after undo: %+v", a)
	}
	if out, err := runHeddle(t, "apply", "-f", "-"); err == nil {
		t.Errorf("nothing was applied: %s", out)
	}
}

// TestCheck checks the cluster before and after, and finds what was put there to be found.
func TestCheck(t *testing.T) {
	if out, err := runHeddle(t, "check", "--pre"); err != nil || !strings.Contains(out, "0 errors") {
		t.Errorf("before: %v: %s", err, out)
	}
	ns := namespace(t, true)
	apply(t, ns, server("web", 4, ""))
	ready(t, ns, "deployment/web")
	out, err := runHeddle(t, "check")
	if err != nil {
		t.Errorf("after: %v: %s", err, out)
	}
	for _, want := range []string{"ok       control plane", "ok       webhook certificate", "ok       webhook endpoints", "ok       definitions"} {
		if !strings.Contains(out, want) {
			t.Errorf("heddle check lacks %q:\n%s", want, out)
		}
	}
	// Other tests' namespaces may be ending.
	for _, wrong := range []string{"is not connected", "selects no workload", "service " + ns + "/", "service default/", "service kube-system/"} {
		if strings.Contains(out, wrong) {
			t.Errorf("heddle check says %q of a mesh that is well:\n%s", wrong, out)
		}
	}
	kubectl(t, "label", "namespace", ns, "heddle.dev/inject=yes", "--overwrite")
	out, err = runHeddle(t, "check")
	if err == nil || !strings.Contains(out, "heddle.dev/inject=yes, which is neither enabled nor disabled") || !strings.Contains(out, "fix: kubectl label namespace "+ns) {
		t.Errorf("with a bad label: %v: %s", err, out)
	}
	kubectl(t, "label", "namespace", ns, "heddle.dev/inject=enabled", "heddle.dev/rev=nowhere", "--overwrite")
	out, err = runHeddle(t, "check")
	if err == nil || !strings.Contains(out, "revision is not installed") {
		t.Errorf("with a revision that is not there: %v: %s", err, out)
	}
}
