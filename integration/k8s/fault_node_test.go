//go:build k8s

package k8s

import (
	"bufio"
	"context"
	"fmt"
	"strings"
	"testing"
)

// TestNodeVanishes cuts the power of a node under a load. Its pods come up elsewhere, and
// the calls go there.
func TestNodeVanishes(t *testing.T) {
	ns := namespace(t, true)
	// The server runs where the caller does not, so that all replicas are equally near.
	apply(t, ns, server("web", 2, `
      affinity: {nodeAffinity: {requiredDuringSchedulingIgnoredDuringExecution: {nodeSelectorTerms: [
        {matchExpressions: [{key: kubernetes.io/hostname, operator: NotIn, values: [n1]}]}]}}}
      topologySpreadConstraints: [{maxSkew: 1, topologyKey: kubernetes.io/hostname, whenUnsatisfiable: ScheduleAnyway, labelSelector: {matchLabels: {app: web}}}]
      tolerations: [{key: node.kubernetes.io/unreachable, operator: Exists, effect: NoExecute, tolerationSeconds: 1}]
`)+"---"+onNamed("n1", client("caller")))
	ready(t, ns, "deployment/web", "pod/caller")
	// The cluster has one DNS server, and it is not what is tested.
	victim := 3
	if kubectl(t, "-n", "kube-system", "get", "pods", "-l", "k8s-app=kube-dns", "-o", "jsonpath={.items[*].spec.nodeName}") == "n3" {
		victim = 2
	}
	node := fmt.Sprintf("n%d", victim)
	lost := kubectl(t, "-n", ns, "get", "pods", "-l", "app=web", "--field-selector=spec.nodeName="+node, "-o", "jsonpath={.items[*].metadata.name}")
	if len(strings.Fields(lost)) != 1 {
		t.Fatalf("on %s run %q, want one pod of web", node, lost)
	}

	l := startLoad(t, ns, "caller", "http://web/", 100)
	answered := statistic{ns, lost, "envoy_http_downstream_rq", `envoy_response_code_class="2"`}
	before := answered.read(t)
	eventually(t, "the pod that will be lost is under load", func() (string, bool) {
		n := answered.read(t)
		return fmt.Sprint(n), n > before+50
	})
	ends := holdOne(t, ns, "caller", "web:9000", lost)
	if err := c.KillNode(victim); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.StartNode(victim); err != nil {
			t.Error(err)
		}
		kubectl(t, "wait", "--for=condition=Ready", "node/"+node, "--timeout=80s")
	})
	kubectl(t, "wait", "--for=condition=Ready=Unknown", "node/"+node, "--timeout=80s")
	eventually(t, "who waits on a connection that is no HTTP is told of its end", func() (string, bool) {
		select {
		case end := <-ends:
			return end, end != ""
		default:
			return "nothing", false
		}
	})
	eventually(t, "another pod takes the place of the lost one", func() (string, bool) {
		row := kubectl(t, "-n", ns, "get", "pods", "-l", "app=web", "-o", "wide", "--field-selector=spec.nodeName!="+node)
		return row, strings.Count(row, "2/2") == 2
	})
	// The control plane that the caller's proxy listened to may be lost as well: until it has
	// found another one, it knows of no change.
	eventually(t, "the caller goes to the pods that are left", func() (string, bool) {
		for range 5 {
			if a := get(t, ns, "caller", "http://web/"); a.Code != 200 {
				return fmt.Sprintf("%+v", a), false
			}
		}
		for _, replica := range strings.Fields(kubectl(t, "-n", "heddle-system", "get", "pods", "-l", "app.kubernetes.io/name=heddle-controlplane", "--field-selector=spec.nodeName!="+node, "-o", "name")) {
			said := kubectl(t, "-n", "heddle-system", "logs", replica)
			if strings.Contains(said, `"proxy connected","id":"`+ns+`/caller"`) {
				return "", true
			}
		}
		return "its control plane is on " + node, false
	})
	after := startLoad(t, ns, "caller", "http://web/", 100)
	for range 20 {
		get(t, ns, "caller", "http://web/")
	}
	if r := after.unharmed(); r.By[lost] > 0 {
		t.Errorf("%s answered from beyond", lost)
	}
	r := l.finish()
	t.Logf("lost with the node: %v at %v", r.Failures, r.Times)
	if r.By[lost] == 0 {
		t.Errorf("%s was never called; answered by %v", lost, r.By)
	}
	// What was under way is lost, and nobody waits for answers that will not come.
	if r.Failures["timeout"] > 0 {
		t.Errorf("%d requests were left waiting until the application gave up", r.Failures["timeout"])
	}
}

// onNamed puts a pod on a node.
func onNamed(node, objects string) string {
	return strings.Replace(objects, "spec:\n", "spec:\n  nodeName: "+node+"\n", 1)
}

// holdOne opens connections from a pod until one is to the wanted workload, and says on the
// channel how that ends. The test's end closes it.
func holdOne(t *testing.T, ns, pod, address, workload string) <-chan string {
	t.Helper()
	for range 20 {
		cmd := c.In(context.WithoutCancel(t.Context()), "kubectl", "-n", ns, "exec", "-i", pod, "-c", "app", "--", "/app", "hold", "until-end", address)
		in, err := cmd.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(out)
		if !lines.Scan() || !strings.Contains(lines.Text(), "220 "+workload) {
			in.Close()
			_ = cmd.Wait()
			continue
		}
		t.Cleanup(func() { in.Close(); _ = cmd.Wait() })
		end := make(chan string, 1)
		go func() {
			lines.Scan()
			end <- lines.Text()
		}()
		return end
	}
	t.Fatalf("no connection to %s was to %s", address, workload)
	return nil
}
