package kubernetes

import (
	"slices"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/heddle-mesh/heddle/controlplane/mesh"
	"github.com/heddle-mesh/heddle/discovery/manifest"
)

func TestRender(t *testing.T) {
	v, err := DefaultValues()
	if err != nil {
		t.Fatal(err)
	}
	for _, all := range []string{"injection.cni=true", "ingress.enabled=true", "ingress.secretNamespaces=[shop]", "networkPolicy.enabled=true"} {
		if err := v.Set(all); err != nil {
			t.Fatal(err)
		}
	}
	objects, err := Render(Namespace, v)
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range objects {
		t.Log(label(o))
		if _, ok := resources[o.GetKind()]; !ok {
			t.Errorf("%s: the installer does not know the kind", label(o))
		}
	}
}

// TestDefinitions: each kind of documents has its definition here, or is one that others
// define or nobody writes.
func TestDefinitions(t *testing.T) {
	definitions, err := Definitions()
	if err != nil {
		t.Fatal(err)
	}
	others := []mesh.Kind{mesh.KindService, mesh.KindHTTPRoute, mesh.KindGRPCRoute, mesh.KindWorkload}
	for _, kind := range manifest.Kinds() {
		ours := slices.ContainsFunc(definitions, func(d *unstructured.Unstructured) bool {
			name, _, _ := unstructured.NestedString(d.Object, "spec", "names", "kind")
			return name == string(kind)
		})
		if ours == slices.Contains(others, kind) {
			t.Errorf("%s: defined here: %v", kind, ours)
		}
	}
}
