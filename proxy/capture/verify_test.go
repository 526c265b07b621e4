package capture

import (
	"strconv"
	"testing"
)

// TestVerify asks as a sidecar does at its start, with and without rules, and with
// programs of others on the ports that are asked.
func TestVerify(t *testing.T) {
	inSandbox(t, []Mode{Transparent}, func(t *testing.T, m Mode) {
		n := openNetwork(t, testConfig(t, m))
		ns := newNamespace(t, n, NamespaceConfig{Name: "a", Named: true})
		if err := ns.RemoveRules(); err != nil {
			t.Fatal(err)
		}
		check := func(when, want string) {
			t.Helper()
			got, _ := run(t, ns, ns.ProxyExec(helperExec("verify", ns.AddrV4().String(), ns.AddrV6().String())))
			if got != want {
				t.Errorf("%s: %q, want %q", when, got, want)
			}
		}
		check("without rules", "not captured")
		rules := PodRules()
		rules.ExcludeInPorts = verifyPorts[:1]
		if err := rules.Apply(t.Context(), ns.Path()); err != nil {
			t.Fatal(err)
		}
		check("with rules, and one port left out", "captured")
		for _, port := range verifyPorts {
			serve(t, ns, "app", ":"+strconv.Itoa(int(port)))
		}
		check("beside an application on all ports", "captured")
		if err := RemoveRules(ns.Path()); err != nil {
			t.Fatal(err)
		}
		check("beside an application and without rules", "not captured")
	})
}
