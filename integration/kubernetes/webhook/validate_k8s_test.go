//go:build k8s

package webhook

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	chart "github.com/heddle-mesh/heddle/install/kubernetes"

	"github.com/heddle-mesh/heddle/integration/kubernetes/inject"
)

// TestValidation: what no definition can say is refused by the webhook, in the words of
// heddle apply; what is in the cluster from before can be labelled and deleted.
func TestValidation(t *testing.T) {
	definitions, err := chart.Definitions()
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range definitions {
		do(t, http.MethodPost, "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", d.Object, nil)
	}
	const policies, configs = "/apis/mesh.heddle.dev/v1alpha1/namespaces/default/authorizationpolicies", "/apis/mesh.heddle.dev/v1alpha1/meshconfigs"
	policy := func(name, identity string) m {
		return m{"apiVersion": "mesh.heddle.dev/v1alpha1", "kind": "AuthorizationPolicy", "metadata": m{"name": name},
			"spec": m{"rules": []any{m{"from": []any{m{"identity": identity}}}}}}
	}
	foreign := policy("foreign", "spiffe://other.example/ns/a/sa/b")
	await(t, "the kinds are served", func() error { return server.Do(t.Context(), http.MethodPost, policies, foreign, nil) })

	running(t, inject.DefaultRevision)
	post := func(path string, object m) error {
		return server.Do(t.Context(), http.MethodPost, path+"?dryRun=All", object, nil)
	}
	if err := post(policies, policy("good", "spiffe://shop.example/ns/a/sa/b")); err != nil {
		t.Errorf("a good policy: %v", err)
	}
	for _, c := range []struct {
		path   string
		object m
		want   string
	}{
		{policies, policy("bad", "spiffe://other.example/ns/a/sa/b"),
			`AuthorizationPolicy default/bad: spec.rules[0].from[0].identity: is of trust domain \"other.example\" and this mesh is \"shop.example\"; identities of others cannot connect`},
		{configs, m{"apiVersion": "mesh.heddle.dev/v1alpha1", "kind": "MeshConfig", "metadata": m{"name": "mesh"}, "spec": m{"trustDomain": "other.example"}},
			`MeshConfig mesh: spec.trustDomain: \"other.example\" is not the control plane's \"shop.example\"`},
	} {
		await(t, "the API server asks", func() error {
			if err := post(c.path, c.object); err == nil || !strings.Contains(err.Error(), c.want) {
				return fmt.Errorf("got %v\nwant %s", err, c.want)
			}
			return nil
		})
	}
	do(t, http.MethodPatch, policies+"/foreign", m{"metadata": m{"labels": m{"a": "b"}}}, nil)
	if err := server.Do(t.Context(), http.MethodPatch, policies+"/foreign", m{"spec": m{"action": "Deny"}}, nil); err == nil {
		t.Error("a bad policy was changed and is still bad")
	}
	do(t, http.MethodDelete, policies+"/foreign", nil, nil)
}
