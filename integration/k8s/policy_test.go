//go:build k8s

package k8s

import (
	"fmt"
	"strings"
	"testing"
)

// TestPolicy is the audit's rule: the database takes the API's calls and nobody else's.
func TestPolicy(t *testing.T) {
	ns := namespace(t, true)
	apply(t, ns, server("db", 1, "")+"---"+client("api")+"---"+client("frontend"))
	ready(t, ns, "deployment/db", "pod/api", "pod/frontend")
	for _, caller := range []string{"api", "frontend"} {
		if a := get(t, ns, caller, "http://db/"); a.Code != 200 {
			t.Fatalf("before: %s got %+v", caller, a)
		}
	}
	apply(t, ns, `
apiVersion: mesh.heddle.dev/v1alpha1
kind: AuthorizationPolicy
metadata: {name: db}
spec:
  targetRefs: [{kind: Service, name: db}]
  rules: [{from: [{serviceAccount: api}]}]
`)
	eventually(t, "the frontend is refused", func() (string, bool) {
		a := get(t, ns, "frontend", "http://db/")
		return fmt.Sprintf("%+v", a), a.Code == 403
	})
	if a := inPod(t, ns, "frontend", "tcp", "db:9000")[0]; a.Error == "" {
		t.Errorf("the frontend at the port that is no HTTP: %+v", a)
	}
	if a := get(t, ns, "api", "http://db/"); a.Code != 200 {
		t.Errorf("the API: %+v", a)
	}
	if a := inPod(t, ns, "api", "tcp", "db:9000")[0]; !strings.HasPrefix(a.Body, "220 ") {
		t.Errorf("the API at the port that is no HTTP: %+v", a)
	}
	eventually(t, "kubectl shows how it fares", func() (string, bool) {
		row := kubectl(t, "-n", ns, "get", "authz")
		return row, strings.Contains(row, "Allow") && strings.Contains(row, "True") && strings.Contains(row, "ACCEPTED")
	})
}

// TestBadPolicy has policies that the API server refuses, and says why.
func TestBadPolicy(t *testing.T) {
	ns := namespace(t, true)
	out, err := tryApply(t, ns, `
apiVersion: mesh.heddle.dev/v1alpha1
kind: AuthorizationPolicy
metadata: {name: early}
spec: {targetRefs: [{kind: Service, name: none}]}
`)
	if want := "Warning: service " + ns + "/none does not exist; create it, or correct the name in spec.targetRefs"; err != nil || !strings.Contains(out, want) {
		t.Errorf("of a service that does not exist: %v: %s\nwant %s", err, out, want)
	}
	for _, c := range []struct{ name, spec, says string }{
		{"nobody", "{rules: [{from: [{}]}]}", "names nobody; give serviceAccount, namespace or identity"},
		{"both", `{rules: [{from: [{identity: "spiffe://mesh.local/ns/a/sa/b", namespace: c}]}]}`, "has an identity and more"},
		{"deny nothing", "{action: Deny}", "a Deny without rules refuses nobody"},
		{"typo", "{action: Alow}", "Unsupported value"},
		{"unknown field", "{rule: []}", "unknown field"},
		{"foreign trust domain", `{rules: [{from: [{identity: "spiffe://other.example/ns/a/sa/b"}]}]}`, "this mesh is"},
	} {
		t.Run(c.name, func(t *testing.T) {
			out, err := tryApply(t, ns, fmt.Sprintf("apiVersion: mesh.heddle.dev/v1alpha1\nkind: AuthorizationPolicy\nmetadata: {name: bad}\nspec: %s\n", c.spec))
			if err == nil || !strings.Contains(out, c.says) {
				t.Errorf("%v: %s; want %q", err, out, c.says)
			}
		})
	}
}
