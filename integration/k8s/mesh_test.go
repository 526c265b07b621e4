//go:build k8s

package k8s

import (
	"slices"
	"strings"
	"testing"
)

// TestMesh is the thinnest slice: two pods that were injected, and one that was not.
func TestMesh(t *testing.T) {
	ns, outside := namespace(t, true), namespace(t, false)
	apply(t, ns, server("web", 2, "")+"---"+client("caller"))
	apply(t, outside, server("legacy", 1, "")+"---"+client("stranger"))
	ready(t, ns, "deployment/web", "pod/caller")
	ready(t, outside, "deployment/legacy", "pod/stranger")

	t.Run("identity", func(t *testing.T) {
		s := get(t, ns, "caller", "http://web/").served(t)
		want := "URI=spiffe://mesh.local/ns/" + ns + "/sa/caller"
		if got := s.Headers["X-Forwarded-Client-Cert"]; !slices.ContainsFunc(got, func(h string) bool { return strings.Contains(h, want) }) {
			t.Errorf("the server saw %v, want %s", got, want)
		}
	})
	t.Run("names", func(t *testing.T) {
		for _, host := range []string{"web", "web." + ns, "web." + ns + ".svc", "web." + ns + ".svc.cluster.local"} {
			if a := get(t, ns, "caller", "http://"+host+"/"); a.Code != 200 {
				t.Errorf("%s: %+v", host, a)
			}
		}
	})
	t.Run("plaintext is refused", func(t *testing.T) {
		if a := get(t, outside, "stranger", "http://web."+ns+"/"); a.Error == "" {
			t.Errorf("a pod outside of the mesh got %+v", a)
		}
	})
	t.Run("services outside of the mesh", func(t *testing.T) {
		s := get(t, ns, "caller", "http://legacy."+outside+"/").served(t)
		if s.Version != "legacy" {
			t.Errorf("answered by %+v", s)
		}
	})
	t.Run("the API server", func(t *testing.T) {
		// Its TLS passes as it is: the program does not know its CA, and says so.
		if a := get(t, ns, "caller", "https://kubernetes.default.svc/version"); !strings.Contains(a.Error, "certificate") {
			t.Errorf("%+v", a)
		}
	})
}
