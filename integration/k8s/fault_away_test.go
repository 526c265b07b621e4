//go:build k8s

package k8s

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"
)

// controlPlaneAway ends all replicas of the control plane, until back or the test's end.
func controlPlaneAway(t *testing.T) (back func()) {
	t.Helper()
	kubectl(t, "-n", "heddle-system", "scale", "deployment/heddle-controlplane", "--replicas=0")
	away := true
	back = func() {
		if away {
			kubectl(t, "-n", "heddle-system", "scale", "deployment/heddle-controlplane", "--replicas=2")
			kubectl(t, "-n", "heddle-system", "rollout", "status", "deployment/heddle-controlplane", "--timeout=80s")
		}
		away = false
	}
	t.Cleanup(back)
	kubectl(t, "-n", "heddle-system", "wait", "--for=delete", "pod", "-l", "app.kubernetes.io/name=heddle-controlplane", "--timeout=80s")
	return back
}

// TestStartWithoutControlPlane has a pod that was injected while there was a control plane,
// and starts for the first time when there is none: it waits, says for what, and comes. A
// probe lets it wait for long; with a hook, which is the default, it is started anew.
func TestStartWithoutControlPlane(t *testing.T) {
	t.Run("hook", func(t *testing.T) { startsLate(t, true) })
	t.Run("probe", func(t *testing.T) {
		if out, err := install(t.Context(), "--set", "injection.hold=probe"); err != nil {
			t.Fatalf("install: %v: %s", err, out)
		}
		t.Cleanup(func() {
			if out, err := install(context.WithoutCancel(t.Context())); err != nil {
				t.Errorf("install: %v: %s", err, out)
			}
		})
		startsLate(t, false)
	})
}

func startsLate(t *testing.T, again bool) {
	ns := namespace(t, true)
	apply(t, ns, server("web", 1, "")+"---"+strings.Replace(client("late"), "spec:\n", "spec:\n  schedulingGates: [{name: test.heddle.dev/later}]\n", 1))
	ready(t, ns, "deployment/web")
	back := controlPlaneAway(t)
	kubectl(t, "-n", ns, "patch", "pod", "late", "--type=json", "-p", `[{"op": "remove", "path": "/spec/schedulingGates"}]`)
	eventually(t, "heddle check names it", func() (string, bool) {
		out, err := runHeddle(t, "check")
		return out, err != nil && strings.Contains(out, "sidecars wait, and their applications for them: "+ns+"/late") &&
			strings.Contains(out, "kubectl -n "+ns+" logs late -c heddle-proxy says for what") &&
			strings.Contains(out, "no replica of heddle-controlplane is available")
	})
	out, err := runHeddle(t, "inject", "--explain", ns+"/late")
	if err != nil || !strings.Contains(out, "The sidecar has not started yet, and the application waits for it") {
		t.Errorf("heddle inject --explain: %v: %s", err, out)
	}
	eventually(t, "its log says for what it waits", func() (string, bool) {
		said, _ := tryKubectl(t, "-n", ns, "logs", "late", "-c", "heddle-proxy") // none before it runs
		return said, strings.Contains(said, "no new SVID") && strings.Contains(said, "control plane at heddle-controlplane.heddle-system")
	})
	app := kubectl(t, "-n", ns, "get", "pod", "late", "-o", "jsonpath={.status.containerStatuses[0].state}")
	if n := restarts(t, ns, "pod/late"); !strings.Contains(app, "waiting") || n > 0 && !again {
		t.Errorf("the application is %s, and its sidecar was started again %d times", app, n)
	}
	if again {
		eventually(t, "the pod's status says for what it waits", func() (string, bool) {
			said := kubectl(t, "-n", ns, "get", "pod", "late", "-o", "jsonpath={.status.initContainerStatuses[?(@.name==\"heddle-proxy\")]}")
			return said, strings.Contains(said, "the application was not started, as the sidecar was not ready in 1m0s") && strings.Contains(said, "no new SVID")
		})
	}
	since := time.Now().Truncate(time.Second) // as the API server tells times
	back()
	ready(t, ns, "pod/late")
	started := kubectl(t, "-n", ns, "get", "pod", "late", "-o", "jsonpath={.status.containerStatuses[0].state.running.startedAt}")
	if at, err := time.Parse(time.RFC3339, started); err != nil || at.Before(since) {
		t.Errorf("the application started at %s (%v), and nobody could serve its sidecar before %s", at, err, since)
	}
	if n := restarts(t, ns, "pod/late"); (n > 0) != again {
		t.Errorf("the sidecar was started again %d times", n)
	}
	if a := get(t, ns, "late", "http://web/"); a.Code != 200 {
		t.Errorf("the pod that waited got %+v", a)
	}
}

// TestFailurePolicyIgnore is an installation without whose webhook pods start all the same,
// without a sidecar: nobody in the mesh takes them for one of theirs, and who asks is told.
func TestFailurePolicyIgnore(t *testing.T) {
	if out, err := install(t.Context(), "--set", "injection.failurePolicy=Ignore"); err != nil {
		t.Fatalf("install: %v: %s", err, out)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), 3*time.Minute)
		defer cancel()
		if out, err := install(ctx); err != nil {
			t.Errorf("install: %v: %s", err, out)
		}
	})
	ns := namespace(t, true)
	apply(t, ns, server("web", 1, ""))
	ready(t, ns, "deployment/web")
	back := controlPlaneAway(t)
	apply(t, ns, client("late"))
	ready(t, ns, "pod/late")
	if names := containersOf(t, ns, "late"); strings.Contains(names, "heddle") {
		t.Fatalf("the pod has the containers %s, and nobody could have asked for a sidecar", names)
	}
	refused := func() {
		t.Helper()
		if a := get(t, ns, "late", "http://web/"); a.Error == "" {
			t.Errorf("a pod without a sidecar was answered %+v", a)
		}
		if a := inPod(t, ns, "late", "tcp", "web:9000")[0]; a.Error == "" {
			t.Errorf("and at the port that is no HTTP %+v", a)
		}
	}
	refused()
	if out, err := runHeddle(t, "check"); err == nil || !strings.Contains(out, "is made without asking it; of pods, without a sidecar") {
		t.Errorf("heddle check without a control plane: %v: %s", err, out)
	}
	back()
	refused()
	out, err := runHeddle(t, "check")
	for _, want := range []string{"or were made while the webhook could not be asked: ", ns + "/late", "heddle inject --explain "} {
		if err != nil || !strings.Contains(out, want) {
			t.Errorf("heddle check, which is to say %q: %v: %s", want, err, out)
		}
	}
	out, err = runHeddle(t, "inject", "--explain", ns+"/late")
	if want := "has no sidecar but is to have one"; err != nil || !strings.Contains(out, want) || !strings.Contains(out, "delete it and create it again") {
		t.Fatalf("heddle inject --explain: %v: %s", err, out)
	}
	kubectl(t, "-n", ns, "delete", "pod", "late", "--grace-period=1")
	apply(t, ns, client("late"))
	ready(t, ns, "pod/late")
	eventually(t, "made anew as it says, the pod is of the mesh", func() (string, bool) {
		a := get(t, ns, "late", "http://web/")
		return fmt.Sprintf("%+v", a), a.Code == 200
	})
}

// containersOf are the names of all of a pod's containers.
func containersOf(t *testing.T, ns, pod string) string {
	t.Helper()
	return kubectl(t, "-n", ns, "get", "pod", pod, "-o", "jsonpath={.spec.initContainers[*].name} {.spec.containers[*].name}")
}
