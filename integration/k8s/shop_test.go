//go:build k8s

package k8s

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"testing"
)

// TestShop runs the example shop as its README says, with real nginx, PostgreSQL and
// Jaeger, and holds it to what that promises.
func TestShop(t *testing.T) {
	startShop(t)
	outside := namespace(t, false)
	apply(t, outside, client("stranger"))
	ready(t, outside, "pod/stranger")
	frontend, api, loadgen := inside(t, "app=frontend"), inside(t, "app=api"), inside(t, "app=loadgen")

	t.Run("browser", func(t *testing.T) { browse(t, outside) })
	t.Run("ingress", func(t *testing.T) { shopIngress(t) })
	t.Run("the browsers' entrance", func(t *testing.T) {
		// Workloads of the mesh that call it must not speak mutual TLS to nginx.
		if a := get(t, "shop", loadgen, "http://shop/"); a.Code != 200 || !strings.Contains(a.Body, "<html") {
			t.Errorf("from the mesh: %+v", a)
		}
	})
	t.Run("versions", func(t *testing.T) {
		if seen := versions(t, frontend, 200); seen["v1"] < 140 || seen["v2"] < 2 || seen["v1"]+seen["v2"] != 200 {
			t.Errorf("of 200 requests versions answered %v; want about 180 and 20", seen)
		}
	})
	t.Run("audit", func(t *testing.T) {
		// PostgreSQL answers an SSLRequest with one byte, N; the policy lets nobody but the API get so far.
		for pod, want := range map[string]string{api: "N", frontend: "", loadgen: ""} {
			if a := inPod(t, "shop", pod, "raw", "db:5432", "0000000804d2162f")[0]; a.Body != want {
				t.Errorf("%s hears %q of the database (%s), want %q", pod, a.Body, a.Error, want)
			}
		}
	})
	t.Run("certificates", func(t *testing.T) {
		for label, port := range map[string]string{"db": "5432", "api": "8080", "frontend": "8080"} {
			ip := kubectl(t, "-n", "shop", "get", "pods", "-l", "app="+label, "-o", "jsonpath={.items[0].status.podIP}")
			a := inPod(t, outside, "stranger", "peer", ip+":"+port)[0]
			if want := "spiffe://mesh.local/ns/shop/sa/" + label; a.Body != want || !strings.Contains(a.Error, "certificate required") {
				t.Errorf("%s on the wire: %+v, want %s, which refuses", label, a, want)
			}
		}
	})
	t.Run("trace", func(t *testing.T) { awaitTrace(t, outside) })
	t.Run("routes", func(t *testing.T) { changeRoutes(t, frontend) })
	t.Run("IPv6", func(t *testing.T) {
		if a := get(t, outside, "stranger", "http://["+ipv6(t, "shop")+"]/api/version"); a.Code != 200 || !strings.HasPrefix(a.Body, "v") {
			t.Errorf("from outside of the mesh: %+v", a)
		}
		if a := get(t, "shop", loadgen, "http://["+ipv6(t, "frontend")+"]/api/version"); a.Code != 200 || !strings.HasPrefix(a.Body, "v") {
			t.Errorf("from the mesh: %+v", a)
		}
	})
	t.Run("restricted", func(t *testing.T) { isRestricted(t) })
	t.Run("rolling restart", func(t *testing.T) { restartAPI(t, loadgen) })
	t.Run("probes", func(t *testing.T) {
		eventually(t, "all pods of the shop are ready", func() (string, bool) { // those that were replaced may end meanwhile
			out, err := tryKubectl(t, "-n", "shop", "wait", "--for=condition=Ready", "pods", "--all", "--timeout=10s")
			return out, err == nil
		})
		restarts := kubectl(t, "-n", "shop", "get", "pods", "-o", "jsonpath={.items[*].status.containerStatuses[*].restartCount}")
		if strings.Trim(restarts, "0 ") != "" {
			t.Errorf("the probes restarted containers: %s", restarts)
		}
	})
}

// isRestricted asks the API server whether the shop's own containers fit the restricted
// level of Pod Security; what the injector adds needs more, without the CNI plugin.
func isRestricted(t *testing.T) {
	ns := namespace(t, false)
	kubectl(t, "label", "namespace", ns, "pod-security.kubernetes.io/warn=restricted")
	objects, err := os.ReadFile(shopFile)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		what, objects string
		fits          bool
	}{
		{"the shop", strings.ReplaceAll(string(objects), "namespace: shop}", "namespace: "+ns+"}"), true},
		{"pods that ask for nothing", strings.ReplaceAll(server("careless", 1, ""), "metadata: {name:", "metadata: {namespace: "+ns+", name:"), false},
	} {
		if said, err := tryApply(t, "", c.objects, "--dry-run=server"); err != nil || strings.Contains(said, "would violate PodSecurity") == c.fits {
			t.Errorf("%s: %v: %s", c.what, err, said)
		}
	}
}

// browse asks for the page and the API as a browser does: in another namespace, and from
// outside of the cluster.
func browse(t *testing.T, outside string) {
	ip := ""
	eventually(t, "the shop has an address", func() (string, bool) {
		ip = kubectl(t, "-n", "shop", "get", "service", "shop", "-o", "jsonpath={.status.loadBalancer.ingress[0].ip}")
		return ip, ip != ""
	})
	out, err := c.In(t.Context(), app, "get", "http://"+ip+"/", "http://"+ip+"/api/").Output()
	if err != nil {
		t.Fatal(err)
	}
	var page, document answer
	answers := json.NewDecoder(strings.NewReader(string(out)))
	for _, a := range []*answer{&page, &document} {
		if err := answers.Decode(a); err != nil {
			t.Fatal(err)
		}
	}
	for from, pair := range map[string][2]answer{
		"outside of the cluster": {page, document},
		"another namespace":      {get(t, outside, "stranger", "http://shop.shop/"), get(t, outside, "stranger", "http://shop.shop/api/")},
	} {
		if page := pair[0]; page.Code != 200 || !strings.Contains(page.Body, "<html") {
			t.Errorf("from %s the page is %+v", from, page)
		}
		var fields map[string]any
		if document := pair[1]; json.Unmarshal([]byte(document.Body), &fields) != nil || fields["id"] == nil {
			t.Errorf("from %s a document is %+v", from, document)
		}
	}
}

// versions counts which version of the API answers n requests of a pod.
func versions(t *testing.T, pod string, n int) map[string]int {
	t.Helper()
	args := []string{"get"}
	for range n {
		args = append(args, "http://api/version")
	}
	seen := map[string]int{}
	for _, a := range inPod(t, "shop", pod, args...) {
		seen[strings.TrimSpace(a.Body)+a.Error]++
	}
	return seen
}

// ipv6 is the IPv6 address of a Service.
func ipv6(t *testing.T, service string) string {
	t.Helper()
	for ip := range strings.FieldsSeq(kubectl(t, "-n", "shop", "get", "service", service, "-o", "jsonpath={.spec.clusterIPs[*]}")) {
		if strings.Contains(ip, ":") {
			return ip
		}
	}
	t.Fatalf("Service %s has no IPv6 address", service)
	return ""
}

// changeRoutes moves all requests by kubectl, and back by heddle.
func changeRoutes(t *testing.T, frontend string) {
	apply(t, "shop", fmt.Sprintf(`
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: api-split}
spec:
  parentRefs: [{group: "", kind: Service, name: api, port: 80}]
  rules: [{backendRefs: [{name: api-v1, port: 80, weight: %d}, {name: api-v2, port: 80, weight: %d}]}]
`, 0, 100))
	eventually(t, "v2 has all", func() (string, bool) {
		seen := versions(t, frontend, 20)
		return fmt.Sprint(seen), seen["v2"] == 20
	})
	if out, err := runHeddle(t, "routes", "split", "api", "v1=100", "v2=0", "-n", "shop", "--wait"); err != nil {
		t.Fatalf("heddle routes split: %v: %s", err, out)
	}
	// --wait returned, so it holds for the next request.
	if seen := versions(t, frontend, 20); seen["v1"] != 20 {
		t.Errorf("after heddle routes split --wait versions answered %v", seen)
	}
	if out, err := runHeddle(t, "routes", "split", "api", "v1=90", "v2=10", "-n", "shop", "--wait"); err != nil {
		t.Fatalf("heddle routes split: %v: %s", err, out)
	}
}

// restartAPI replaces every pod of the API under load: the load generator's own, which
// asks for documents, and a harder one beside it.
func restartAPI(t *testing.T, loadgen string) {
	type counts struct {
		OK, Failed  int
		LastFailure string
	}
	count := func() (n counts) {
		a := get(t, "shop", loadgen, "http://127.0.0.1:8080/")
		if err := json.Unmarshal([]byte(a.Body), &n); err != nil {
			t.Fatalf("the load generator tells %+v: %v", a, err)
		}
		return n
	}
	before := count()
	l := startLoad(t, "shop", loadgen, "http://frontend/api/", 50, "-method", "GET")
	kubectl(t, "-n", "shop", "rollout", "restart", "deployment/api-v1", "deployment/api-v2")
	ready(t, "shop", "deployment/api-v1", "deployment/api-v2")
	after := count()
	l.unharmed()
	if after.OK == before.OK || after.Failed != before.Failed {
		t.Errorf("the load generator counted %+v before and %+v after", before, after)
	}
}
