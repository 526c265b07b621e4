//go:build k8s

package k8s

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"
)

// TestServices calls Services of every kind from a pod of the mesh.
func TestServices(t *testing.T) {
	ns := namespace(t, true)
	spread := `
      topologySpreadConstraints: [{maxSkew: 1, topologyKey: kubernetes.io/hostname, whenUnsatisfiable: DoNotSchedule, labelSelector: {matchLabels: {app: web}}}]`
	onNode1 := strings.Replace(client("caller"), "spec:\n  serviceAccountName", "spec:\n  nodeName: n1\n  serviceAccountName", 1)
	apply(t, ns, server("web", 3, spread)+"---"+onNode1+`
---
apiVersion: v1
kind: Service
metadata: {name: both}
spec: {selector: {app: web}, ipFamilyPolicy: RequireDualStack, ports: [{name: http, port: 80, targetPort: http}]}
---
apiVersion: v1
kind: Service
metadata: {name: here}
spec: {selector: {app: web}, internalTrafficPolicy: Local, ports: [{name: http, port: 80, targetPort: http}]}
---
apiVersion: v1
kind: Service
metadata: {name: near}
spec: {selector: {app: web}, trafficDistribution: PreferSameNode, ports: [{name: http, port: 80, targetPort: http}]}
---
apiVersion: v1
kind: Service
metadata: {name: alias}
spec: {type: ExternalName, externalName: web.`+ns+`.svc.cluster.local}
---
apiVersion: v1
kind: Service
metadata: {name: opened}
spec: {type: NodePort, selector: {app: web}, ports: [{name: http, port: 80, targetPort: http}]}
---
apiVersion: v1
kind: Service
metadata: {name: by-hand}
spec: {ports: [{name: http, port: 80, targetPort: 8080}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: by-hand, labels: {kubernetes.io/service-name: by-hand}}
addressType: IPv4
ports: [{name: http, port: 8080}]
endpoints: []
`)
	ready(t, ns, "deployment/web", "pod/caller")
	own := kubectl(t, "-n", ns, "get", "pods", "-l", "app=web", "--field-selector=spec.nodeName=n1", "-o", "jsonpath={.items[0].metadata.name}")

	answers := func(t *testing.T, host string) map[string]int {
		t.Helper()
		by := map[string]int{}
		for _, a := range inPod(t, ns, "caller", append([]string{"get"}, repeat("http://"+host+"/", 12)...)...) {
			if a.Code != 200 {
				t.Fatalf("%s: %+v", host, a)
			}
			by[a.served(t).Workload]++
		}
		return by
	}
	for _, host := range []string{"both", "alias", "opened"} {
		answers(t, host)
	}
	for _, family := range []string{"0", "1"} {
		ip := kubectl(t, "-n", ns, "get", "service", "both", "-o", "jsonpath={.spec.clusterIPs["+family+"]}")
		if strings.Contains(ip, ":") {
			ip = "[" + ip + "]"
		}
		answers(t, ip)
	}
	for _, host := range []string{"here", "near"} {
		if by := answers(t, host); len(by) != 1 || by[own] == 0 {
			t.Errorf("%s is answered by %v, want only %s, on the caller's node", host, by, own)
		}
	}
	t.Run("endpoints by hand", func(t *testing.T) {
		outside := namespace(t, false)
		apply(t, outside, server("legacy", 1, ""))
		ready(t, outside, "deployment/legacy")
		ip := kubectl(t, "-n", outside, "get", "pods", "-l", "app=legacy", "-o", "jsonpath={.items[0].status.podIP}")
		kubectl(t, "-n", ns, "patch", "endpointslice", "by-hand", "--type=merge", "-p", fmt.Sprintf(`{"endpoints":[{"addresses":[%q]}]}`, ip))
		eventually(t, "the endpoint answers", func() (string, bool) {
			a := get(t, ns, "caller", "http://by-hand/")
			return fmt.Sprintf("%+v", a), a.Code == 200 && a.served(t).Version == "legacy"
		})
	})
	t.Run("a node's port is no way around", func(t *testing.T) {
		port := kubectl(t, "-n", ns, "get", "service", "opened", "-o", "jsonpath={.spec.ports[0].nodePort}")
		if out, err := fetch(t.Context(), "http://10.89.0.11:"+port+"/"); err == nil {
			t.Errorf("plaintext through a node's port was answered: %s", out)
		}
	})
	t.Run("names outside of the cluster", func(t *testing.T) {
		if a := inPod(t, ns, "caller", "resolve", "ip4", "outside.example")[0]; a.Body != "192.0.2.7" {
			t.Errorf("%+v", a)
		}
		outside := namespace(t, false)
		apply(t, outside, client("stranger"))
		ready(t, outside, "pod/stranger")
		for _, name := range []string{"nobody.example", "nobody." + ns + ".svc.cluster.local", "web." + ns} {
			in, out := inPod(t, ns, "caller", "resolve", "ip4", name)[0], inPod(t, outside, "stranger", "resolve", "ip4", name)[0]
			if in != out {
				t.Errorf("%s: %+v in the mesh, %+v outside", name, in, out)
			}
		}
	})
	t.Run("port-forward", func(t *testing.T) { portForward(t, ns) })
}

func repeat(s string, n int) []string {
	out := make([]string, n)
	for i := range out {
		out[i] = s
	}
	return out
}

// portForward reaches an application as its developer does.
func portForward(t *testing.T, ns string) {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	cmd := c.In(ctx, "kubectl", "-n", ns, "port-forward", "deployment/web", ":8080", "--address=127.0.0.1")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		cancel()
		_ = cmd.Wait() // killed
	}()
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatalf("port-forward told nothing: %v", err)
	}
	address := strings.Fields(strings.TrimPrefix(line, "Forwarding from "))[0]
	if said, err := fetch(ctx, "http://"+address+"/"); err != nil || !strings.Contains(said, `"version":"web"`) {
		t.Errorf("%v: %s", err, said)
	}
}

// fetch asks a URL as the cluster's own network has it, outside of all pods.
func fetch(ctx context.Context, url string) (body string, err error) {
	client := http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true, DialContext: c.Dial}}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return "", err
	}
	resp, err := client.Do(request)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	said, err := io.ReadAll(resp.Body)
	return string(said), err
}
