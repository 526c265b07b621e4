//go:build k8s

package k8s

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
)

// TestAddressReused gives the addresses of a pod that ended to another workload at once,
// while the caller's and the server's proxies cannot hear of it: an address is no identity,
// neither of who is called nor of who calls.
func TestAddressReused(t *testing.T) {
	ns := namespace(t, true)
	apply(t, ns, onNamed("n3", client("caller"))+"---"+server("db", 1, "      nodeSelector: {kubernetes.io/hostname: n3}\n")+`
---
apiVersion: mesh.heddle.dev/v1alpha1
kind: AuthorizationPolicy
metadata: {name: db}
spec: {targetRefs: [{kind: Service, name: db}], rules: [{from: [{serviceAccount: web}]}]}
---`+serviceOf("web")+"---"+podOfService("first", "web"))
	ready(t, ns, "deployment/db", "pod/caller", "pod/first")
	was := addresses(t, ns, "first")
	eventually(t, "the caller calls the address", func() (string, bool) {
		a := get(t, ns, "caller", "http://web/")
		return fmt.Sprintf("%+v", a), a.Code == 200 && a.served(t).Workload == "first"
	})
	eventually(t, "and the database is for the one who has it", func() (string, bool) {
		theirs, others := get(t, ns, "first", "http://db/"), get(t, ns, "caller", "http://db/")
		return fmt.Sprintf("%+v %+v", theirs, others), theirs.Code == 200 && others.Code == 403
	})
	if a := inPod(t, ns, "first", "tcp", "db:9000")[0]; !strings.HasPrefix(a.Body, "220 ") {
		t.Fatalf("the first pod at the database's port that is no HTTP: %+v", a)
	}

	heal := deafen(t, 3, ns, "caller", podOf(t, ns, "db"))
	l := startLoad(t, ns, "caller", "http://web/", 50)
	kubectl(t, "-n", ns, "delete", "pod", "first", "--grace-period=1")
	giveNext(t, 2, was)
	apply(t, ns, serviceOf("other")+"---"+podOfService("second", "other"))
	ready(t, ns, "pod/second")
	if is := addresses(t, ns, "second"); !slices.Equal(is, was) {
		t.Fatalf("the second pod has the addresses %v, not %v", is, was)
	}

	// The second pod's proxy takes the connection, and shows who it is.
	eventually(t, "the caller finds somebody else at the address", func() (string, bool) {
		a := get(t, ns, "caller", "http://web/")
		said := kubectl(t, "-n", ns, "logs", "caller", "-c", "heddle-proxy", "--tail=20")
		return fmt.Sprintf("%+v", a), a.Code == 503 && strings.Contains(said, "certificate_SANs_are_[spiffe://mesh.local/ns/"+ns+"/sa/other]")
	})
	if a := get(t, ns, "second", "http://db/"); a.Code != 403 {
		t.Errorf("the database answers another workload at the address of the one that it is for: %+v", a)
	}
	if a := inPod(t, ns, "second", "tcp", "db:9000")[0]; a.Error == "" || a.Body != "" {
		t.Errorf("and at the port that is no HTTP: %+v", a)
	}
	if r := l.finish(); r.By["second"] > 0 || r.By["first"] == 0 {
		t.Errorf("requests for web were answered by %v", r.By)
	}

	heal()
	eventually(t, "who is told of the change calls the pod by its own name", func() (string, bool) {
		a := get(t, ns, "caller", "http://other/")
		return fmt.Sprintf("%+v", a), a.Code == 200 && a.served(t).Workload == "second"
	})
	eventually(t, "and has no address for the service that is left without a pod", func() (string, bool) {
		a := get(t, ns, "caller", "http://web/")
		return fmt.Sprintf("%+v", a), a.Code == 503 && strings.Contains(a.Body, "no healthy upstream")
	})
}

// addresses are a pod's, IPv4 first.
func addresses(t *testing.T, ns, pod string) []string {
	t.Helper()
	return strings.Fields(kubectl(t, "-n", ns, "get", "pod", pod, "-o", "jsonpath={.status.podIPs[*].ip}"))
}

// deafen cuts pods of a node off from the control plane, both ways, as what is under way
// would still be heard: their proxies keep what they have.
func deafen(t *testing.T, node int, ns string, pods ...string) (heal func()) {
	t.Helper()
	var rules strings.Builder
	for _, pod := range pods {
		for _, address := range addresses(t, ns, pod) {
			family := "ip"
			if strings.Contains(address, ":") {
				family = "ip6"
			}
			fmt.Fprintf(&rules, "%[1]s saddr %[2]s tcp dport 15010 drop; %[1]s daddr %[2]s tcp sport 15010 drop; ", family, address)
		}
	}
	onNode(t, node, "nft", "table inet deaf { chain cut { type filter hook forward priority -10; "+rules.String()+"}; }")
	deaf := true
	heal = func() {
		if deaf {
			onNode(t, node, "nft", "delete table inet deaf")
		}
		deaf = false
	}
	t.Cleanup(heal)
	return heal
}

// giveNext has a node's next pod get these addresses, which must be free: it gives them in
// their order, and is told that the one before was the last (host-local's own files).
func giveNext(t *testing.T, node int, addresses []string) {
	t.Helper()
	for i, address := range addresses {
		last := netip.MustParseAddr(address).Prev().String()
		onNode(t, node, "sh", "-c", fmt.Sprintf("printf %%s %s > /var/lib/cni/networks/cluster/last_reserved_ip.%d", last, i))
	}
}

// serviceOf is a Service with a service account of its name.
func serviceOf(name string) string {
	return fmt.Sprintf(`
apiVersion: v1
kind: ServiceAccount
metadata: {name: %[1]s}
---
apiVersion: v1
kind: Service
metadata: {name: %[1]s}
spec: {selector: {app: %[1]s}, ports: [{name: http, port: 80, targetPort: 8080}]}
`, name)
}

// podOfService is a pod on the second node that serves what serviceOf made, and that
// nothing makes anew.
func podOfService(name, service string) string {
	return fmt.Sprintf(`
apiVersion: v1
kind: Pod
metadata: {name: %[1]s, labels: {app: %[2]s}}
spec:
  nodeName: n2
  serviceAccountName: %[2]s
  containers:
  - name: app
    image: APP_IMAGE
    args: [serve, -http, ":8080"]
    env: [{name: HEDDLE_WORKLOAD, valueFrom: {fieldRef: {fieldPath: metadata.name}}}]
    readinessProbe: {httpGet: {path: /healthz, port: 8080}, periodSeconds: 1}
`, name, service)
}
