//go:build k8s

package k8s

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
)

// edge is the ingress of a test.
type edge struct {
	t      *testing.T
	ns     string
	at     string // its address
	issuer issuer
}

// TestIngress has clients outside of the cluster, which come by Ingresses.
func TestIngress(t *testing.T) {
	if out, err := install(t.Context(), "--set", "ingress.enabled=true"); err != nil {
		t.Fatalf("install: %v: %s", err, out)
	}
	t.Cleanup(removeIngress(t))
	ns, outside := namespace(t, true), namespace(t, false)
	e := edge{t: t, ns: ns, issuer: newIssuer(t)}
	e.issue("tls", "secure.example")
	apply(t, ns, server("frontend", 2, "")+"---"+server("api", 1, "")+"---"+server("db", 1, "")+"---"+client("caller")+ingressObjects)
	apply(t, outside, server("legacy", 1, "")+legacyIngress)
	ready(t, ns, "deployment/frontend", "deployment/api", "deployment/db", "pod/caller")
	ready(t, outside, "deployment/legacy")
	eventually(t, "the Ingress has an address", func() (string, bool) {
		e.at = kubectl(t, "-n", ns, "get", "ingress", "shop", "-o", "jsonpath={.status.loadBalancer.ingress[0].ip}")
		return e.at, e.at != ""
	})
	eventually(t, "the Ingress is served", func() (string, bool) {
		a := e.visit("http://shop.example/")
		return fmt.Sprintf("%+v", a), a.Code == 200
	})
	t.Run("paths", func(t *testing.T) { ingressPaths(t, e) })
	t.Run("headers", func(t *testing.T) { ingressHeaders(t, e) })
	t.Run("policies", func(t *testing.T) { ingressPolicies(t, e) })
	t.Run("tls", func(t *testing.T) { ingressTLS(t, e) })
	t.Run("upgrades", func(t *testing.T) { ingressUpgrades(t, e) })
	t.Run("IPv6", func(t *testing.T) { ingressIPv6(t, e) })
	t.Run("rights", ingressRights)
	t.Run("faults", func(t *testing.T) { ingressFaults(t, e) })
	t.Run("another certificate", func(t *testing.T) { rotateCertificate(t, e) })
	t.Run("rolling restart", func(t *testing.T) { restartIngress(t, e) })
}

const ingressObjects = `
---
apiVersion: mesh.heddle.dev/v1alpha1
kind: AuthorizationPolicy
metadata: {name: frontend}
spec:
  targetRefs: [{kind: Service, name: frontend}]
  rules: [{from: [{namespace: heddle-system, serviceAccount: heddle-ingress}]}]
---
apiVersion: mesh.heddle.dev/v1alpha1
kind: AuthorizationPolicy
metadata: {name: db}
spec:
  targetRefs: [{kind: Service, name: db}]
  rules: [{from: [{serviceAccount: api}]}]
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: shop}
spec:
  ingressClassName: heddle
  rules:
  - host: shop.example
    http:
      paths:
      - {path: /, pathType: Prefix, backend: {service: {name: frontend, port: {name: http}}}}
      - {path: /api, pathType: Prefix, backend: {service: {name: api, port: {number: 80}}}}
      - {path: /api/exact, pathType: Exact, backend: {service: {name: frontend, port: {number: 80}}}}
      - {path: /db, pathType: Prefix, backend: {service: {name: db, port: {name: http}}}}
  - host: "*.shop.example"
    http: {paths: [{path: /only, pathType: ImplementationSpecific, backend: {service: {name: api, port: {name: http}}}}]}
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: secure}
spec:
  ingressClassName: heddle
  tls: [{hosts: [secure.example], secretName: tls}]
  rules:
  - host: secure.example
    http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: frontend, port: {name: http}}}}]}
`

const legacyIngress = `
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: legacy}
spec:
  ingressClassName: heddle
  rules:
  - host: legacy.example
    http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: legacy, port: {number: 80}}}}]}
`

// removeIngress takes the ingress away again: other tests have none.
func removeIngress(t *testing.T) func() {
	return func() {
		if t.Failed() {
			logs, _ := tryKubectl(t, "-n", "heddle-system", "logs", "-l", "app.kubernetes.io/name=heddle-ingress", "--prefix", "--tail=40")
			t.Log(logs)
		}
		ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), 2*patience)
		defer cancel()
		if out, err := install(ctx); err != nil {
			t.Errorf("install without the ingress: %v: %s", err, out)
		}
		if left := kubectl(t, "get", "deployments,services,poddisruptionbudgets,roles,rolebindings,serviceaccounts,clusterroles,clusterrolebindings,ingressclasses",
			"-A", "-l", "app.kubernetes.io/name=heddle-ingress", "-o", "name"); left != "" {
			t.Errorf("an installation without the ingress left behind: %s", left)
		}
	}
}

// visit is an answer to a client outside of the cluster.
type visit struct {
	answer
	Protocol, Location, Serial string
}

// visit asks from outside of the cluster; flags go before the URL, headers after it.
func (e edge) visit(args ...string) visit {
	e.t.Helper()
	out, err := c.In(e.t.Context(), append([]string{app, "visit", "-to", e.at, "-ca", e.issuer.file}, args...)...).Output()
	var v visit
	if err != nil || json.Unmarshal(out, &v) != nil {
		e.t.Fatalf("visit %v: %v: %s", args, err, out)
	}
	return v
}

func ingressPaths(t *testing.T, e edge) {
	for url, want := range map[string]string{
		"http://shop.example/":               "200 frontend",
		"http://shop.example/apiary":         "200 frontend", // prefixes are of whole segments
		"http://shop.example/api":            "200 api",
		"http://shop.example/api/":           "200 api",
		"http://shop.example/api/exact":      "200 frontend",
		"http://shop.example/api/exact/not":  "200 api",
		"http://shop.example//x/..//api/one": "200 api", // one path has one spelling
		"http://a.shop.example/only":         "200 api",
		"http://a.shop.example/other":        "404 ",
		"http://a.b.shop.example/only":       "404 ", // a wildcard is one label
		"http://stranger.example/":           "404 ",
		"http://frontend/":                   "404 ", // no Ingress names it
		"http://legacy.example/":             "200 legacy",
	} {
		v := e.visit(url)
		got := fmt.Sprint(v.Code, " ")
		if v.Code == 200 {
			got += v.served(t).Version
		}
		if got != want {
			t.Errorf("%s: %s, want %s: %+v", url, got, want, v)
		}
	}
}

// ingressHeaders has a client that pretends to be somebody else.
func ingressHeaders(t *testing.T, e edge) {
	v := e.visit("http://shop.example/", "X-Forwarded-For=6.6.6.6", "X-Forwarded-Proto=https", "X-Forwarded-Host=evil.example", "Forwarded=for=6.6.6.6",
		"X-Real-Ip=6.6.6.6", "X-Forwarded-Client-Cert=URI=spiffe://mesh.local/ns/default/sa/admin", "X-Request-Id=forged", "X-Envoy-Retry-On=5xx", "Traceparent=00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
	if v.Code != 200 {
		t.Fatalf("%+v", v)
	}
	got := v.served(t)
	h := got.Headers
	if got.Host != "shop.example" {
		t.Errorf("Host is %s", got.Host)
	}
	if from := strings.Join(h["X-Forwarded-For"], ","); from == "" || strings.Contains(from, "6.6.6.6") || strings.Contains(from, ",") {
		t.Errorf("X-Forwarded-For is %q; want who connected, alone", from)
	}
	if !slices.Equal(h["X-Forwarded-Proto"], []string{"http"}) {
		t.Errorf("X-Forwarded-Proto is %q", h["X-Forwarded-Proto"])
	}
	for _, name := range []string{"X-Forwarded-Host", "Forwarded", "X-Real-Ip", "X-Envoy-Retry-On"} {
		if len(h[name]) > 0 {
			t.Errorf("%s got through: %q", name, h[name])
		}
	}
	if by := strings.Join(h["X-Forwarded-Client-Cert"], ","); !strings.Contains(by, "URI=spiffe://mesh.local/ns/heddle-system/sa/heddle-ingress") || strings.Contains(by, "sa/admin") {
		t.Errorf("X-Forwarded-Client-Cert is %q; want the identity of the ingress", by)
	}
	if all := fmt.Sprint(h["X-Request-Id"], h["Traceparent"]); strings.Contains(all, "forged") || strings.Contains(all, "0af7651916cd43dd8448eb211c80319c") {
		t.Errorf("the client's own request is traced: %s", all)
	}
	if v := e.visit("http://shop.example/", "x_admin=1"); v.Code != 400 {
		t.Errorf("a header with an underscore: %+v", v)
	}
	if v := e.visit("http://shop.example/a%2fb"); v.Code != 307 || v.Location != "/a/b" {
		t.Errorf("an escaped slash: %+v", v)
	}
}

func ingressPolicies(t *testing.T, e edge) {
	if v := e.visit("http://shop.example/db"); v.Code != 403 {
		t.Errorf("the database, which is for the API alone: %+v", v)
	}
	if a := get(t, e.ns, "caller", "http://frontend/"); a.Code != 403 {
		t.Errorf("the frontend, which is for the ingress alone, from the mesh: %+v", a)
	}
	// A pod of the mesh that calls the entrance must not speak mutual TLS to it.
	if a := get(t, e.ns, "caller", "http://heddle-ingress.heddle-system/"); a.Code != 404 {
		t.Errorf("the entrance from the mesh, for a host that nobody has: %+v", a)
	}
}

// ingressUpgrades begins a WebSocket, in the clear and over TLS.
func ingressUpgrades(t *testing.T, e edge) {
	for _, url := range []string{"http://shop.example/", "https://secure.example/"} {
		v := e.visit("-http1", url, "Connection=Upgrade", "Upgrade=websocket")
		if v.Code != 101 || !strings.HasPrefix(v.Body, "hello of frontend-") {
			t.Errorf("%s: %+v", url, v)
		}
	}
}

// ingressIPv6 comes by the other family of the entrance's Service.
func ingressIPv6(t *testing.T, e edge) {
	for address := range strings.FieldsSeq(kubectl(t, "-n", "heddle-system", "get", "service", "heddle-ingress", "-o", `jsonpath={.spec.clusterIPs[*]}`)) {
		if strings.Contains(address, ":") {
			e.at = address
		}
	}
	if !strings.Contains(e.at, ":") {
		t.Fatal("the entrance has no IPv6 address")
	}
	for _, url := range []string{"http://shop.example/", "https://secure.example/"} {
		if v := e.visit(url); v.Code != 200 || v.served(t).Version != "frontend" {
			t.Errorf("%s at %s: %+v", url, e.at, v)
		}
	}
}

func ingressTLS(t *testing.T, e edge) {
	v := e.visit("https://secure.example/")
	if v.Code != 200 || v.Protocol != "HTTP/2.0" || v.Serial != e.issuer.last() {
		t.Fatalf("%+v, want certificate %s", v, e.issuer.last())
	}
	if proto := v.served(t).Headers["X-Forwarded-Proto"]; !slices.Equal(proto, []string{"https"}) {
		t.Errorf("X-Forwarded-Proto is %q", proto)
	}
	if v := e.visit("http://secure.example/a?b=c"); v.Code != 308 || v.Location != "https://secure.example/a?b=c" {
		t.Errorf("in the clear: %+v", v)
	}
	if v := e.visit("-host", "shop.example", "https://secure.example/"); v.Code != 421 {
		t.Errorf("another host on the connection: %+v", v)
	}
	if v := e.visit("https://shop.example/"); v.Error == "" {
		t.Errorf("a host without a certificate: %+v", v)
	}
}
