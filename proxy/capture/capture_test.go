package capture

import (
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"testing"
	"time"
)

// proxyAsk connects from ns as its Envoy would, from source if not empty.
func proxyAsk(t *testing.T, ns *Namespace, addr, source string) string {
	t.Helper()
	mark := "0"
	if ns.Mode() == Rootless {
		mark = strconv.Itoa(DefaultProxyMark)
	}
	out, _ := run(t, ns, ns.ProxyExec(helperExec("dial", addr, mark, source)))
	return out
}

func TestRedirect(t *testing.T) {
	eachMode(t, func(t *testing.T, m Mode) {
		n := openNetwork(t, testConfig(t, m))
		rules := DefaultRules(m)
		rules.ExcludeOutPorts = []uint16{7000}
		rules.ExcludeInPorts = []uint16{7001}
		rules.ExcludeOutCIDRs = []netip.Prefix{netip.MustParsePrefix("10.68.0.1/32"), netip.MustParsePrefix("fd68:6564:646c:1::1/128")}
		rules.ExcludeInCIDRs = rules.ExcludeOutCIDRs // the machine's own addresses
		a := newNamespace(t, n, NamespaceConfig{Name: "a", Rules: rules})
		b := newNamespace(t, n, NamespaceConfig{Name: "b", Rules: rules})
		for _, ns := range []*Namespace{a, b} {
			for name, port := range map[string]int{"out": 15001, "in": 15006, "app": 8080, "plain": 7001, "skip": 7000, "stats": 15090} {
				serve(t, ns, name, fmt.Sprintf(":%d", port))
			}
		}
		host := HostNamespace(testLog(t))
		serve(t, host, "host", ":9000")
		at := func(addr netip.Addr, port uint16) string { return netip.AddrPortFrom(addr, port).String() }
		for _, family := range []struct{ vip, self, peer, host, loopback, source netip.Addr }{
			{netip.MustParseAddr("100.96.0.7"), a.AddrV4(), b.AddrV4(), n.GatewayV4(), netip.MustParseAddr("127.0.0.1"), InboundSourceV4},
			{netip.MustParseAddr("fd68:6564:646c:2::7"), a.AddrV6(), b.AddrV6(), n.GatewayV6(), netip.IPv6Loopback(), InboundSourceV6},
		} {
			f := family
			app := []struct{ what, to, want string }{
				{"a service", at(f.vip, 80), "out " + at(f.vip, 80)},
				{"another workload", at(f.peer, 8080), "out " + at(f.peer, 8080)},
				{"loopback", at(f.loopback, 8080), "app " + at(f.loopback, 8080)},
				{"own address", at(f.self, 8080), "app " + at(f.self, 8080)},
				{"an excluded CIDR", at(f.host, 9000), "host " + at(f.host, 9000)},
				{"an excluded port, redirected at the peer", at(f.peer, 7000), "in " + at(f.peer, 7000)},
			}
			for _, c := range app {
				if got := ask(t, a, c.to); got != c.want {
					t.Errorf("app to %s: %s: %q, want %q", c.what, c.to, got, c.want)
				}
			}
			proxy := []struct{ what, to, from, want string }{
				{"another workload", at(f.peer, 8080), "", "in " + at(f.peer, 8080)},
				{"a port not captured there", at(f.peer, 7001), "", "plain " + at(f.peer, 7001)},
				{"the sidecar's metrics", at(f.peer, 15090), "", "stats " + at(f.peer, 15090)},
				{"its own workload", at(f.self, 8080), "", "in " + at(f.self, 8080)},
				{"its own app", at(f.self, 8080), f.source.String(), "app " + at(f.self, 8080)},
				{"its own app on loopback", at(f.loopback, 8080), "", "app " + at(f.loopback, 8080)},
			}
			for _, c := range proxy {
				if got := proxyAsk(t, a, c.to, c.from); got != c.want {
					t.Errorf("proxy to %s: %s: %q, want %q", c.what, c.to, got, c.want)
				}
			}
			if got, want := ask(t, host, at(f.peer, 8080)), "app "+at(f.peer, 8080); got != want {
				t.Errorf("from an excluded CIDR: %q, want %q", got, want)
			}
			if got := proxyAsk(t, a, at(f.peer, 15006), ""); !strings.Contains(got, "timeout") {
				t.Errorf("another workload's capture port answered: %q", got)
			}
		}
	})
}

func TestRedirectDNS(t *testing.T) {
	eachMode(t, func(t *testing.T, m Mode) {
		n := openNetwork(t, testConfig(t, m))
		ns := newNamespace(t, n, NamespaceConfig{Name: "a"})
		for _, addr := range []string{"127.0.0.1:53", "[::1]:53"} {
			serve(t, ns, "dns", addr)
			p, err := ns.ListenPacket(t.Context(), "udp", addr)
			if err != nil {
				t.Fatal(err)
			}
			done := make(chan struct{})
			go func() {
				defer close(done)
				b := make([]byte, 512)
				for {
					k, from, err := p.ReadFrom(b)
					if err != nil {
						return
					}
					_, _ = p.WriteTo(append([]byte("answer to "), b[:k]...), from)
				}
			}()
			t.Cleanup(func() { p.Close(); <-done })
		}
		// IPv6 first: its very first packet must find the way, see awaitLocal.
		for _, server := range []string{"[2620:fe::9]:53", "9.9.9.9:53", "[::1]:53", "127.0.0.1:53"} {
			c, err := ns.Dial(t.Context(), "udp", server)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			if _, err := c.Write([]byte("api")); err != nil {
				t.Fatal(err)
			}
			_ = c.SetReadDeadline(time.Now().Add(5 * time.Second))
			b := make([]byte, 512)
			k, err := c.Read(b)
			if err != nil || string(b[:k]) != "answer to api" {
				t.Errorf("udp %s: %q, %v", server, b[:k], err)
			}
			if got := ask(t, ns, server); !strings.HasPrefix(got, "dns ") {
				t.Errorf("tcp %s: %q", server, got)
			}
		}
	})
}

func TestSetAndRemoveRules(t *testing.T) {
	eachMode(t, func(t *testing.T, m Mode) {
		n := openNetwork(t, testConfig(t, m))
		ns := newNamespace(t, n, NamespaceConfig{Name: "a"})
		serve(t, ns, "first", ":15001")
		serve(t, ns, "second", ":15002")
		rules := DefaultRules(m)
		for range 3 {
			if err := ns.SetRules(rules); err != nil {
				t.Fatal(err)
			}
		}
		if got := ask(t, ns, "100.96.0.1:1"); got != "first 100.96.0.1:1" {
			t.Errorf("got %q", got)
		}
		rules.OutboundPort = 15002
		if err := ns.SetRules(rules); err != nil {
			t.Fatal(err)
		}
		if got := ask(t, ns, "100.96.0.1:1"); got != "second 100.96.0.1:1" {
			t.Errorf("got %q", got)
		}
		for range 2 {
			if err := ns.RemoveRules(); err != nil {
				t.Fatal(err)
			}
		}
		serve(t, HostNamespace(testLog(t)), "host", ":9000")
		to := netip.AddrPortFrom(n.GatewayV4(), 9000).String()
		if got := ask(t, ns, to); got != "host "+to {
			t.Errorf("after removal: %q", got)
		}
	})
}

func TestDialRefusesNames(t *testing.T) {
	_, err := HostNamespace(testLog(t)).Dial(t.Context(), "tcp", net.JoinHostPort("localhost", "80"))
	if err == nil {
		t.Error("dialled a name")
	}
}
