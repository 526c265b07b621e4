package capture

import (
	"net/netip"
	"testing"

	"github.com/google/nftables"

	"github.com/heddle-mesh/heddle/install/parts/partstest"
)

// TestPodRules: two pods with real Envoys. What the rules capture goes through both; what
// belongs to the sidecar, is excluded, or is asked of the application by the sidecar does
// not. Loading them again replaces them.
func TestPodRules(t *testing.T) {
	envoy := partstest.Envoy(t)
	inSandbox(t, []Mode{Transparent}, func(t *testing.T, m Mode) {
		n := openNetwork(t, testConfig(t, m))
		a := newNamespace(t, n, NamespaceConfig{Name: "a", Named: true})
		b := newNamespace(t, n, NamespaceConfig{Name: "b", Named: true})
		rules := PodRules()
		for range 2 {
			if err := rules.Apply(t.Context(), a.Path()); err != nil {
				t.Fatal(err)
			}
		}
		rules.ExcludeInPorts = []uint16{9090}
		if err := rules.Apply(t.Context(), b.Path()); err != nil {
			t.Fatal(err)
		}
		for address, name := range map[string]string{"127.0.0.1:8080": "app", ":9090": "plain", ":15021": "probes"} {
			serve(t, b, name, address)
		}
		serve(t, a, "dns", "127.0.0.1:15053")
		serve(t, a, "dns", "[::1]:15053")
		for _, ns := range []*Namespace{a, b} {
			startEnvoy(t, ns, envoy)
		}
		host := HostNamespace(testLog(t))
		for _, f := range []struct{ self, peer, resolver netip.Addr }{
			{a.AddrV4(), b.AddrV4(), netip.MustParseAddr("10.96.0.10")},
			{a.AddrV6(), b.AddrV6(), netip.MustParseAddr("fd00::a")},
		} {
			at := func(addr netip.Addr, port uint16) string { return netip.AddrPortFrom(addr, port).String() }
			source := InboundSourceV4
			if f.self.Is6() {
				source = InboundSourceV6
			}
			serve(t, a, "own", at(f.self, 8080))
			for what, got := range map[string][2]string{
				"the app to a peer, through both Envoys":  {ask(t, a, at(f.peer, 80)), "app 127.0.0.1:8080"},
				"a stranger, through the peer's Envoy":    {ask(t, host, at(f.peer, 80)), "app 127.0.0.1:8080"},
				"a stranger to an excluded port":          {ask(t, host, at(f.peer, 9090)), "plain " + at(f.peer, 9090)},
				"the kubelet to the probes":               {ask(t, host, at(f.peer, 15021)), "probes " + at(f.peer, 15021)},
				"the app to its resolver":                 {ask(t, a, at(f.resolver, 53)), "dns " + at(f.resolver, 53)},
				"the sidecar to its application":          {proxyAsk(t, a, at(f.self, 8080), source.String()), "own " + at(f.self, 8080)},
				"the sidecar to a peer's excluded port":   {proxyAsk(t, a, at(f.peer, 9090), ""), "plain " + at(f.peer, 9090)},
				"the sidecar to its own pod, as a client": {proxyAsk(t, b, at(f.peer, 7777), ""), "app 127.0.0.1:8080"},
			} {
				if got[0] != got[1] {
					t.Errorf("%s: %q, want %q", what, got[0], got[1])
				}
			}
		}
		if there, err := Applied(b.Path()); err != nil || !there {
			t.Errorf("applied: %v, %v", there, err)
		}
		for range 2 {
			if err := RemoveRules(b.Path()); err != nil {
				t.Fatal(err)
			}
		}
		if there, err := Applied(b.Path()); err != nil || there {
			t.Errorf("applied after removal: %v, %v", there, err)
		}
		serve(t, b, "bare", ":7070")
		if to := netip.AddrPortFrom(b.AddrV4(), 7070).String(); ask(t, host, to) != "bare "+to {
			t.Errorf("after removal: %q", ask(t, host, to))
		}
	})
}

// TestKernelWithoutIPv6 loads the rules into a table of IPv4 alone, as such a kernel knows.
func TestKernelWithoutIPv6(t *testing.T) {
	inSandbox(t, []Mode{Transparent}, func(t *testing.T, m Mode) {
		cfg := testConfig(t, m)
		cfg.PrefixV6 = netip.Prefix{}
		n := openNetwork(t, cfg)
		ns := newNamespace(t, n, NamespaceConfig{Name: "a"})
		if err := ns.RemoveRules(); err != nil {
			t.Fatal(err)
		}
		rules := PodRules()
		rules.ExcludeOutCIDRs = []netip.Prefix{netip.MustParsePrefix("fd00::/8"), netip.MustParsePrefix("192.0.2.0/24")}
		for range 2 {
			if err := rules.applyTo(int(ns.file.Fd()), nftables.TableFamilyIPv4); err != nil {
				t.Fatal(err)
			}
		}
		serve(t, ns, "out", "0.0.0.0:15001")
		serve(t, ns, "in", "0.0.0.0:15006")
		for _, c := range []struct {
			from     *Namespace
			to, want string
		}{
			{ns, "100.96.0.7:80", "out 100.96.0.7:80"},
			{HostNamespace(testLog(t)), ns.AddrV4().String() + ":80", "in " + ns.AddrV4().String() + ":80"},
		} {
			if got := ask(t, c.from, c.to); got != c.want {
				t.Errorf("to %s: %q, want %q", c.to, got, c.want)
			}
		}
	})
}
