package inject

import (
	"strings"
	"testing"
)

func TestExplain(t *testing.T) {
	owned := `"ownerReferences":[{"apiVersion":"apps/v1","kind":"ReplicaSet","name":"a-1","uid":"u"}]`
	spec := `"spec":{"containers":[{"name":"app","image":"a"}]}`
	sidecar := `"spec":{"initContainers":[{"name":"heddle-proxy","image":"h"}],"containers":[{"name":"app","image":"a"}]}`
	for _, c := range []struct{ name, pod, ns, want string }{
		{"in the mesh", `{"metadata":{"name":"a","annotations":{"heddle.dev/injected":"default"}},` + sidecar + `}`, "inject=enabled",
			"pod shop/a has a sidecar of revision default: namespace shop has the label heddle.dev/inject=enabled."},
		{"in the mesh, and waiting", `{"metadata":{"name":"a","annotations":{"heddle.dev/injected":"default"}},` + sidecar + `,"status":{"initContainerStatuses":[{"name":"heddle-proxy","started":false,"state":{"running":{}}}]}}`, "inject=enabled",
			"inject=enabled. The sidecar has not started yet, and the application waits for it: kubectl -n shop logs a -c heddle-proxy says why."},
		{"not asked for", `{"metadata":{"name":"a"},` + spec + `}`, "",
			"pod shop/a has no sidecar: neither it nor namespace shop has the label heddle.dev/inject=enabled."},
		{"made before the label", `{"metadata":{"name":"a",` + owned + `},` + spec + `}`, "inject=enabled",
			"pod shop/a has no sidecar but is to have one: namespace shop has the label heddle.dev/inject=enabled. It was made before the label, or while the webhook could not be asked. Delete the pod, and its ReplicaSet a-1 makes it anew; or restart the whole workload with kubectl rollout restart."},
		{"alone, made before the label", `{"metadata":{"name":"a"},` + spec + `}`, "inject=enabled", "Nothing makes the pod anew; delete it and create it again."},
		{"the label was taken away", `{"metadata":{"name":"a","annotations":{"heddle.dev/injected":"default"}},` + sidecar + `}`, "inject=disabled",
			"pod shop/a has a sidecar of revision default; made anew it would have none: namespace shop has the label heddle.dev/inject=disabled."},
		{"an older revision", `{"metadata":{"name":"a","annotations":{"heddle.dev/injected":"v1"},` + owned + `},` + sidecar + `}`, "inject=enabled,rev=v2",
			"pod shop/a has a sidecar of revision v1; made anew it would get one of revision v2 (label heddle.dev/rev)."},
		{"a bad annotation", `{"metadata":{"name":"a","annotations":{"heddle.dev/proxy-cpu":"x"}},` + spec + `}`, "inject=enabled",
			`pod shop/a has no sidecar and would be refused if it were made anew: annotation heddle.dev/proxy-cpu is "x": want a quantity above 0, such as 100m.`},
		{"the name, and not by us", `{"metadata":{"name":"a"},` + sidecar + `}`, "inject=enabled", "Heddle did not make it"},
		{"in the node's network", `{"metadata":{"name":"a"},"spec":{"hostNetwork":true,"containers":[{"name":"app","image":"a"}]}}`, "inject=enabled", "hostNetwork"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := Explain(document(t, c.pod), Namespace{"shop", labelsOf(c.ns)}, testConfig())
			if err != nil || !strings.Contains(got, c.want) {
				t.Errorf("got  %s, %v\nwant %s", got, err, c.want)
			}
		})
	}
}
