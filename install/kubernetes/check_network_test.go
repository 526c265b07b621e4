package kubernetes

import (
	"slices"
	"testing"

	networkingv1 "k8s.io/api/networking/v1"
	"sigs.k8s.io/yaml"
)

// TestShutIn: which namespaces cannot reach the control plane, by their NetworkPolicies.
func TestShutIn(t *testing.T) {
	readme := `{podSelector: {}, policyTypes: [Egress], egress: [
		{to: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: heddle-system}}}], ports: [{port: 15010}]},
		{to: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: kube-system}}}], ports: [{port: 53, protocol: UDP}]}]}`
	for _, tc := range []struct {
		name  string
		specs []string
		open  bool
	}{
		{"nothing for egress", []string{`{podSelector: {}, policyTypes: [Ingress]}`}, true},
		{"closed", []string{`{podSelector: {}, policyTypes: [Ingress, Egress]}`}, false},
		{"the README's", []string{readme}, true},
		{"closed, and the README's", []string{`{podSelector: {}, policyTypes: [Egress]}`, readme}, true},
		{"to everywhere", []string{`{podSelector: {}, policyTypes: [Egress], egress: [{}]}`}, true},
		{"a range of ports", []string{`{podSelector: {}, policyTypes: [Egress], egress: [{ports: [{port: 15000, endPort: 15999}]}]}`}, true},
		{"another port", []string{`{podSelector: {}, policyTypes: [Egress], egress: [{ports: [{port: 443}]}]}`}, false},
		{"another protocol", []string{`{podSelector: {}, policyTypes: [Egress], egress: [{ports: [{port: 15010, protocol: UDP}]}]}`}, false},
		{"another namespace", []string{`{podSelector: {}, policyTypes: [Egress], egress: [{to: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: other}}}]}]}`}, false},
		{"its own pods", []string{`{podSelector: {}, policyTypes: [Egress], egress: [{to: [{podSelector: {}}]}]}`}, false},
		{"other pods of the mesh's namespace", []string{`{podSelector: {}, policyTypes: [Egress], egress: [{to: [{namespaceSelector: {}, podSelector: {matchLabels: {app: x}}}]}]}`}, false},
		{"for some pods", []string{`{podSelector: {matchLabels: {app: x}}, policyTypes: [Egress], egress: [{}]}`}, false},
	} {
		var policies []networkingv1.NetworkPolicy
		for _, spec := range tc.specs {
			p := networkingv1.NetworkPolicy{}
			p.Namespace = "shop"
			if err := yaml.UnmarshalStrict([]byte(spec), &p.Spec); err != nil {
				t.Fatalf("%s: %v", tc.name, err)
			}
			policies = append(policies, p)
		}
		want := []string{"shop"}
		if tc.open {
			want = nil
		}
		if got := shutIn(policies, "heddle-system"); !slices.Equal(got, want) {
			t.Errorf("%s: %v, want %v", tc.name, got, want)
		}
	}
}
