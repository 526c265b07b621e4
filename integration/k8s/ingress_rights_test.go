//go:build k8s

package k8s

import "testing"

// ingressRights asks the API server what the control plane may read.
func ingressRights(t *testing.T) {
	may := func(args ...string) string {
		out, _ := tryKubectl(t, append([]string{"auth", "can-i", "--as=system:serviceaccount:heddle-system:heddle-controlplane"}, args...)...)
		return out
	}
	for _, verb := range []string{"list", "watch", "update", "create"} {
		if got := may(verb, "secrets", "-n", "default"); got != "no" {
			t.Errorf("may it %s Secrets: %s", verb, got)
		}
	}
	if got := may("get", "secret/tls", "-n", "default"); got != "yes" {
		t.Errorf("may it get one: %s", got)
	}
	out, _ := tryKubectl(t, "auth", "can-i", "--as=system:serviceaccount:heddle-system:heddle-ingress", "get", "secret/tls", "-n", "default")
	if out != "no" {
		t.Errorf("may the proxies get one: %s", out)
	}
}
