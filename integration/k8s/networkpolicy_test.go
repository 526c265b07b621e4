//go:build k8s

package k8s

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"
)

// closed lets nobody in or out of a namespace.
const closed = `
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: closed}
spec: {podSelector: {}, policyTypes: [Ingress, Egress]}
`

// webOnly is what an application's own team allows: callers may call web.
const webOnly = `
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: web}
spec:
  podSelector: {matchLabels: {app: web}}
  ingress: [{from: [{podSelector: {matchLabels: {app: caller}}}], ports: [{port: 8080}]}]
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: caller}
spec:
  podSelector: {matchLabels: {app: caller}}
  policyTypes: [Egress]
  egress: [{to: [{podSelector: {matchLabels: {app: web}}}], ports: [{port: 8080}]}]
`

// TestNetworkPolicy has an engine enforce NetworkPolicies. A namespace that is closed works
// with the policy of the README and the application's own, and not without either; the
// mesh's own pods are closed but for what they are for.
func TestNetworkPolicy(t *testing.T) {
	stop, err := c.EnforceNetworkPolicies(t.Context(), t.Output())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := stop(); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() { openMesh(t) })
	p := policed{namespace(t, true), namespace(t, false)}
	apply(t, p.outside, server("plain", 1, "")+"---"+client("stranger"))
	ready(t, p.outside, "deployment/plain", "pod/stranger")
	apply(t, p.ns, closed+"---\n"+readmePolicy(t)+"---"+webOnly)

	t.Run("the engine enforces", p.enforced)
	t.Run("the mesh's own pods", p.own)
	apply(t, p.ns, server("web", 2, "")+"---"+client("caller")+"---"+client("other"))
	ready(t, p.ns, "deployment/web", "pod/caller", "pod/other")
	t.Run("the application's policy", p.application)
	t.Run("the policy of the README", p.readme)
}

// policed are a namespace of the mesh, which is closed, and one outside of it.
type policed struct{ ns, outside string }

// enforced: there is an engine, for pods that have nothing to do with the mesh.
func (p policed) enforced(t *testing.T) {
	plain := func(want bool) func() (string, bool) {
		return func() (string, bool) {
			a := inPod(t, p.outside, "stranger", "tcp", "plain:9000")[0]
			return fmt.Sprintf("%+v", a), (a.Error == "") == want
		}
	}
	eventually(t, "plain is reached", plain(true))
	apply(t, p.outside, closed)
	eventually(t, "plain is not reached", plain(false))
	kubectl(t, "-n", p.outside, "delete", "networkpolicy", "closed")
	eventually(t, "plain is reached again", plain(true))
}

// own: the mesh's own pods are closed to strangers. Agents and the API server reach them, or
// no pod would get a sidecar in what follows.
func (p policed) own(t *testing.T) {
	ip := kubectl(t, "-n", "heddle-system", "get", "service", "heddle-controlplane", "-o", "jsonpath={.spec.clusterIP}")
	metrics := func(want bool) func() (string, bool) {
		return func() (string, bool) {
			a := get(t, p.outside, "stranger", "http://"+ip+":15014/metrics")
			return fmt.Sprintf("%d %s", a.Code, a.Error), (a.Code == 200) == want
		}
	}
	eventually(t, "metrics are read by anybody", metrics(true))
	if out, err := install(t.Context(), closedMesh...); err != nil {
		t.Fatalf("install: %v: %s", err, out)
	}
	eventually(t, "metrics are for the mesh's own namespace", metrics(false))
}

// application: its own policies name its own ports.
func (p policed) application(t *testing.T) {
	answered := func(pod string, want bool) func() (string, bool) {
		return func() (string, bool) {
			a := get(t, p.ns, pod, "http://web/")
			return fmt.Sprintf("%+v", a), (a.Code == 200) == want
		}
	}
	eventually(t, "caller is answered", answered("caller", true))
	eventually(t, "other, which no policy lets out, is not", answered("other", false))
	kubectl(t, "-n", p.ns, "delete", "networkpolicy", "web")
	kubectl(t, "-n", p.ns, "delete", "pod", "-l", "app=web", "--wait=false") // open connections stay open
	ready(t, p.ns, "deployment/web")
	eventually(t, "caller is not answered without the policy", answered("caller", false))
	apply(t, p.ns, webOnly)
	eventually(t, "caller is answered with it", answered("caller", true))
}

// readme: without its policy a new pod waits and says so, and comes when it is there.
func (p policed) readme(t *testing.T) {
	kubectl(t, "-n", p.ns, "delete", "networkpolicy", "heddle")
	nodes := len(strings.Fields(kubectl(t, "get", "nodes", "-o", "name")))
	for i := 1; i <= nodes; i++ {
		eventually(t, fmt.Sprintf("node %d has no rule of it", i), func() (string, bool) {
			rules := onNode(t, i, "iptables-save")
			return rules, !strings.Contains(rules, "heddle namespace "+p.ns)
		})
	}
	apply(t, p.ns, client("late"))
	eventually(t, "a new pod says that it waits", func() (string, bool) {
		log, _ := tryKubectl(t, "-n", p.ns, "logs", "late", "-c", "heddle-proxy")
		return log, strings.Contains(log, "no new SVID")
	})
	if out := kubectl(t, "-n", p.ns, "get", "pod", "late", "-o", "jsonpath={.status.containerStatuses[0].started}"); out != "false" {
		t.Errorf("its application has started: %s", out)
	}
	apply(t, p.ns, readmePolicy(t))
	ready(t, p.ns, "pod/late")
}

// closedMesh is how the mesh's own policies are installed.
var closedMesh = []string{"--set", "networkPolicy.enabled=true", "--set", "networkPolicy.metricsFrom=[{podSelector: {}}]"}

// openMesh takes the mesh's own policies away.
func openMesh(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), 2*time.Minute)
	defer cancel()
	if out, err := install(ctx); err != nil {
		t.Errorf("install: %v: %s", err, out)
	}
	kubectl(t, "-n", "heddle-system", "delete", "networkpolicy", "--all")
}

// readmePolicy is the policy that users copy.
func readmePolicy(t *testing.T) string {
	t.Helper()
	return readmeObject(t, "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\n")
}

// readmeObject is the object of the README that begins so.
func readmeObject(t *testing.T, begin string) string {
	t.Helper()
	text, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, after, ok := strings.Cut(strings.ReplaceAll(string(text), "\n    ", "\n"), "\n"+begin)
	if !ok {
		t.Fatalf("the README has no object that begins %q", begin)
	}
	block, _, _ := strings.Cut(after, "\n\n")
	return begin + block + "\n"
}
