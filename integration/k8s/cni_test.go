//go:build k8s

package k8s

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"
)

// tellCNI shows what an engineer would look at first if the test fails.
func tellCNI(t *testing.T) {
	t.Cleanup(func() {
		if !t.Failed() {
			return
		}
		for _, args := range [][]string{
			{"-n", "kube-system", "get", "pods", "-o", "wide"},
			{"-n", "kube-system", "logs", "-l", "app.kubernetes.io/name=heddle-cni", "--prefix", "--tail=20"},
			{"get", "events", "-A", "--field-selector=type=Warning"},
		} {
			out, _ := tryKubectl(t, args...)
			t.Logf("%v:\n%s", args, out)
		}
	})
}

const (
	conflist    = "/etc/cni/net.d/10-cluster.conflist"
	inCNIMode   = "injection.cni=true"
	restrictive = `
      securityContext: {runAsNonRoot: true, runAsUser: 65532, seccompProfile: {type: RuntimeDefault}}
      automountServiceAccountToken: false`
	restrictedContainer = `
        securityContext: {allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}`
)

// restrictedServer is a server whose own containers fit the level "restricted"; fields are
// of its Deployment's pods.
func restrictedServer(name string, replicas int, fields string) string {
	text := server(name, replicas, fields)
	text = strings.Replace(text, "\n      containers:", restrictive+"\n      containers:", 1)
	return strings.Replace(text, "\n        args: [serve", restrictedContainer+"\n        args: [serve", 1)
}

// TestCNI installs Heddle with its CNI plugin, and goes back at the end.
func TestCNI(t *testing.T) {
	before := map[int]string{}
	nodes := len(strings.Fields(kubectl(t, "get", "nodes", "-o", "name")))
	for i := 1; i <= nodes; i++ {
		before[i] = onNode(t, i, "cat", conflist)
	}
	tellCNI(t)
	if out, err := install(t.Context(), "--set", inCNIMode); err != nil {
		t.Fatalf("install: %v: %s", err, out)
	}
	t.Cleanup(func() { withoutCNI(t) })
	kubectl(t, "-n", "heddle-system", "rollout", "status", "deployment/heddle-controlplane", "--timeout=80s")

	t.Run("restricted", restrictedPods)
	t.Run("exclusions", excludedPorts)
	t.Run("repair", repaired)
	t.Run("a conflist that is rewritten", func(t *testing.T) { rewritten(t, before[1]) })
	t.Run("API server of the plugin away", undecided)
	t.Run("rights", cniRights)
	t.Run("a new version", replaced)

	withoutCNI(t)
	for i := 1; i <= nodes; i++ {
		if now := onNode(t, i, "cat", conflist); now != before[i] {
			t.Errorf("node %d has %s, and had %s", i, now, before[i])
		}
		left := onNode(t, i, "find", "/etc/cni/net.d", "/opt/cni/bin", "-name", "*heddle*")
		if left != "" {
			t.Errorf("left on node %d: %s", i, left)
		}
	}
	ns := namespace(t, true)
	apply(t, ns, server("web", 1, "")+"---"+client("caller"))
	ready(t, ns, "deployment/web", "pod/caller")
	if a := get(t, ns, "caller", "http://web/"); a.Code != 200 {
		t.Errorf("after the plugin is gone: %+v", a)
	}
}

// withoutCNI uninstalls Heddle without saying how it was installed, and installs it in the
// usual way for the tests that follow.
func withoutCNI(t testing.TB) {
	t.Helper()
	if out, _ := tryKubectl(t, "-n", "kube-system", "get", "daemonset", "heddle-cni"); strings.Contains(out, "NotFound") {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), 4*time.Minute)
	defer cancel()
	if out, err := c.In(ctx, heddle, "uninstall", "--timeout=80s").CombinedOutput(); err != nil {
		t.Errorf("uninstall: %v: %s", err, out)
	}
	if out, err := install(ctx); err != nil {
		t.Errorf("install: %v: %s", err, out)
	}
}

// restrictedPods: the API server takes injected pods where the level "restricted" is
// enforced, and they are of the mesh like any other.
func restrictedPods(t *testing.T) {
	ns, outside := namespace(t, true), namespace(t, false)
	kubectl(t, "label", "namespace", ns, "pod-security.kubernetes.io/enforce=restricted")
	apply(t, ns, restrictedServer("web", 2, "")+"---"+restrictedServer("caller", 1, ""))
	apply(t, outside, client("stranger"))
	ready(t, ns, "deployment/web", "deployment/caller")
	ready(t, outside, "pod/stranger")
	caller := podOf(t, ns, "caller")
	names := kubectl(t, "-n", ns, "get", "pod", caller, "-o", "jsonpath={.spec.initContainers[*].name}")
	if names != "heddle-proxy" {
		t.Errorf("its init containers are %s", names)
	}
	s := get(t, ns, caller, "http://web/").served(t)
	if want := "URI=spiffe://mesh.local/ns/" + ns + "/sa/caller"; !strings.Contains(fmt.Sprint(s.Headers["X-Forwarded-Client-Cert"]), want) {
		t.Errorf("the server saw %v, want %s", s.Headers, want)
	}
	if a := get(t, outside, "stranger", "http://web."+ns+"/"); a.Error == "" {
		t.Errorf("a pod outside of the mesh got %+v", a)
	}
	for _, ip := range strings.Fields(kubectl(t, "-n", ns, "get", "pod", podOf(t, ns, "web"), "-o", "jsonpath={.status.podIPs[*].ip}")) {
		if strings.Contains(ip, ":") {
			ip = "[" + ip + "]"
		}
		if a := get(t, outside, "stranger", "http://"+ip+":8080/"); a.Error == "" {
			t.Errorf("%s answered a pod outside of the mesh: %+v", ip, a)
		}
	}
}

// podOf is the newest pod of a Deployment of ours: others may be ending.
func podOf(t *testing.T, ns, app string) string {
	t.Helper()
	return kubectl(t, "-n", ns, "get", "pods", "-l", "app="+app, "--field-selector=status.phase=Running", "--sort-by=.metadata.creationTimestamp", "-o", "jsonpath={.items[-1:].metadata.name}")
}

// excludedPorts: a pod's annotations are the plugin's, too.
func excludedPorts(t *testing.T) {
	ns, outside := namespace(t, true), namespace(t, false)
	web := strings.Replace(server("web", 1, ""), "metadata: {labels: {app: web}}",
		`metadata: {labels: {app: web}, annotations: {heddle.dev/exclude-inbound-ports: "9000"}}`, 1)
	apply(t, ns, web)
	apply(t, outside, client("stranger"))
	ready(t, ns, "deployment/web")
	ready(t, outside, "pod/stranger")
	if a := inPod(t, outside, "stranger", "tcp", "web."+ns+":9000")[0]; !strings.Contains(a.Body, "220 ") {
		t.Errorf("the port that is left out: %+v", a)
	}
	if a := get(t, outside, "stranger", "http://web."+ns+"/"); a.Error == "" {
		t.Errorf("another port: %+v", a)
	}
}

// cniRights: what the two accounts may do, and what not.
func cniRights(t *testing.T) {
	const installer, plugin = "system:serviceaccount:kube-system:heddle-cni", "system:serviceaccount:kube-system:heddle-cni-plugin"
	for _, may := range []struct {
		who, verb, what string
		want            bool
	}{
		{plugin, "get", "pods", true}, {plugin, "list", "pods", false}, {plugin, "delete", "pods", false}, {plugin, "get", "secrets", false},
		{installer, "list", "pods", true}, {installer, "get", "secrets", false}, {installer, "create", "pods", false}, {installer, "create", "pods/exec", false},
		{installer, "create", "serviceaccounts/token", false}, {installer, "patch", "nodes", false},
	} {
		out, err := tryKubectl(t, "auth", "can-i", may.verb, may.what, "--all-namespaces", "--as="+may.who)
		if got := err == nil; got != may.want {
			t.Errorf("%s may %s %s: %s", may.who, may.verb, may.what, out)
		}
	}
	ns := namespace(t, false)
	apply(t, ns, client("victim"))
	ready(t, ns, "pod/victim")
	out, err := tryKubectl(t, "-n", ns, "delete", "pod", "victim", "--as="+installer, "--as-user-extra=authentication.kubernetes.io/node-name=nowhere")
	if err == nil || !strings.Contains(out, "only pods of its own node") {
		t.Errorf("the installer deleted a pod of another node: %v: %s", err, out)
	}
}

// replaced has the DaemonSet's pods replaced under a load and while pods start: the plugin
// stays in place all the time.
func replaced(t *testing.T) {
	ns := namespace(t, true)
	kubectl(t, "-n", "kube-system", "rollout", "restart", "daemonset/heddle-cni")
	apply(t, ns, server("web", 4, ""))
	kubectl(t, "-n", "kube-system", "rollout", "status", "daemonset/heddle-cni", "--timeout=80s")
	ready(t, ns, "deployment/web")
	if n := kubectl(t, "-n", ns, "get", "pods", "-o", `jsonpath={.items[*].status.initContainerStatuses[0].restartCount}`); n != "0 0 0 0" {
		t.Errorf("sidecars were started again: %s", n)
	}
}
