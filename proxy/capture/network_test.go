package capture

import (
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/google/nftables"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

func bridgeExists(t *testing.T, name string) bool {
	t.Helper()
	_, err := netlink.LinkByName(name)
	var notFound netlink.LinkNotFoundError
	if err != nil && !errors.As(err, &notFound) {
		t.Fatal(err)
	}
	return err == nil
}

func TestNetworkIsShared(t *testing.T) {
	eachMode(t, func(t *testing.T, m Mode) {
		cfg := testConfig(t, m)
		var all []*Network
		for range 3 {
			n, err := OpenNetwork(t.Context(), cfg)
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, n)
		}
		for _, n := range all {
			if !bridgeExists(t, cfg.Bridge) {
				t.Error("the bridge went while it was in use")
			}
			if err := n.Close(); err != nil {
				t.Error(err)
			}
		}
		if bridgeExists(t, cfg.Bridge) {
			t.Error("the bridge stayed")
		}
		if rest, _ := filepath.Glob(filepath.Join(cfg.StateDir, "networks", cfg.Bridge, "holders", "*")); len(rest) != 0 {
			t.Errorf("left behind: %v", rest)
		}
	})
}

func TestTwoNetworks(t *testing.T) {
	eachMode(t, func(t *testing.T, m Mode) {
		one := testConfig(t, m)
		two := one
		two.Bridge = "heddle1"
		if _, err := OpenNetwork(t.Context(), one); err != nil {
			t.Fatal(err)
		}
		_, err := OpenNetwork(t.Context(), two)
		if err == nil || !strings.Contains(err.Error(), "heddle0") || !strings.Contains(err.Error(), "--mesh-network-v") {
			t.Errorf("same prefixes: %v", err)
		}
		two.PrefixV4 = netip.MustParsePrefix("10.69.0.0/16")
		two.PrefixV6 = netip.MustParsePrefix("fd68:6564:646c:3::/64")
		n := openNetwork(t, two)
		ns := newNamespace(t, n, NamespaceConfig{Name: "a"})
		if !two.PrefixV4.Contains(ns.AddrV4()) || !two.PrefixV6.Contains(ns.AddrV6()) {
			t.Errorf("addresses %s and %s", ns.AddrV4(), ns.AddrV6())
		}
		two.Bridge, two.PrefixV4 = "heddle0", netip.MustParsePrefix("10.70.0.0/16")
		if _, err := OpenNetwork(t.Context(), two); err == nil || !strings.Contains(err.Error(), "--mesh-bridge") {
			t.Errorf("same bridge: %v", err)
		}
	})
}

func TestNetworkCollisions(t *testing.T) {
	eachMode(t, func(t *testing.T, m Mode) {
		addLink := func(name string) netlink.Link {
			attrs := netlink.NewLinkAttrs()
			attrs.Name = name
			if err := netlink.LinkAdd(&netlink.Bridge{LinkAttrs: attrs}); err != nil {
				t.Fatal(err)
			}
			l, err := netlink.LinkByName(name)
			if err != nil {
				t.Fatal(err)
			}
			if err := netlink.LinkSetUp(l); err != nil {
				t.Fatal(err)
			}
			return l
		}
		office := addLink("office")
		route := &netlink.Route{LinkIndex: office.Attrs().Index, Dst: ipNet(netip.MustParsePrefix("10.0.0.0/8"))}
		if err := netlink.RouteAdd(route); err != nil {
			t.Fatal(err)
		}
		cfg := testConfig(t, m)
		_, err := OpenNetwork(t.Context(), cfg)
		if err == nil || !strings.Contains(err.Error(), "10.0.0.0/8 via office") || !strings.Contains(err.Error(), "--mesh-network-v4") {
			t.Errorf("got %v", err)
		}
		if bridgeExists(t, cfg.Bridge) {
			t.Error("a bridge was made all the same")
		}
		if err := netlink.RouteDel(route); err != nil {
			t.Fatal(err)
		}
		addLink(cfg.Bridge)
		if _, err := OpenNetwork(t.Context(), cfg); err == nil || !strings.Contains(err.Error(), "not heddle's") {
			t.Errorf("a stranger's bridge: %v", err)
		}
	})
}

func TestWithoutIPv6(t *testing.T) {
	eachMode(t, func(t *testing.T, m Mode) {
		for _, which := range []string{"all", "default"} {
			if err := writeSysctl("net/ipv6/conf/"+which+"/disable_ipv6", "1"); err != nil {
				t.Fatal(err)
			}
		}
		n := openNetwork(t, testConfig(t, m))
		ns := newNamespace(t, n, NamespaceConfig{Name: "a"})
		if n.IPv6() || ns.AddrV6().IsValid() || n.GatewayV6().IsValid() {
			t.Error("there is an IPv6 address")
		}
		serve(t, ns, "out", ":15001")
		if got := ask(t, ns, "100.96.0.1:80"); got != "out 100.96.0.1:80" {
			t.Errorf("got %q", got)
		}
	})
}

func TestNamed(t *testing.T) {
	eachMode(t, func(t *testing.T, m Mode) {
		cfg := testConfig(t, m)
		n := openNetwork(t, cfg)
		path := filepath.Join(cfg.NamedDir, "a")
		if err := os.WriteFile(path, nil, 0o600); err != nil { // a leftover
			t.Fatal(err)
		}
		ns, err := n.NewNamespace(t.Context(), NamespaceConfig{Name: "a", Named: true, Rules: DefaultRules(m)})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := n.NewNamespace(t.Context(), NamespaceConfig{Name: "a", Named: true, Rules: DefaultRules(m)}); !errors.Is(err, ErrInUse) {
			t.Errorf("second of the same name: %v", err)
		}
		again, err := OpenNamespace(path, m, testLog(t))
		if err != nil {
			t.Fatal(err)
		}
		defer again.Close()
		serve(t, ns, "app", "127.0.0.1:8080")
		if got := ask(t, again, "127.0.0.1:8080"); got != "app 127.0.0.1:8080" {
			t.Errorf("got %q", got)
		}
		if err := ns.Close(); err != nil {
			t.Error(err)
		}
		if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("the name stayed: %v", err)
		}
	})
}

// Workloads reach a machine outside, which sees this machine's address; other
// nftables tables stay as they are.
func TestMasquerade(t *testing.T) {
	inSandbox(t, []Mode{Transparent}, func(t *testing.T, m Mode) {
		outside := addOutside(t)
		c, err := nftables.New()
		if err != nil {
			t.Fatal(err)
		}
		c.AddTable(&nftables.Table{Name: "firewall", Family: nftables.TableFamilyINet})
		if err := c.Flush(); err != nil {
			t.Fatal(err)
		}
		cfg := testConfig(t, m)
		n, err := OpenNetwork(t.Context(), cfg)
		if err != nil {
			t.Fatal(err)
		}
		rules := DefaultRules(m)
		rules.ExcludeOutPorts = []uint16{9000}
		ns, err := n.NewNamespace(t.Context(), NamespaceConfig{Name: "a", Rules: rules})
		if err != nil {
			t.Fatal(err)
		}
		l, err := outside.Listen(t.Context(), "tcp", "192.0.2.2:9000")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		conn, err := ns.Dial(t.Context(), "tcp", "192.0.2.2:9000")
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		peer, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		defer peer.Close()
		if got := peer.RemoteAddr().String(); !strings.HasPrefix(got, "192.0.2.1:") {
			t.Errorf("seen as %s", got)
		}
		if err := errors.Join(ns.Close(), n.Close()); err != nil {
			t.Error(err)
		}
		tables, err := c.ListTables()
		if err != nil {
			t.Fatal(err)
		}
		if len(tables) != 1 || tables[0].Name != "firewall" {
			t.Errorf("tables afterwards: %v", tables)
		}
	})
}

// addOutside makes a namespace that stands for another machine, 192.0.2.2.
func addOutside(t *testing.T) *Namespace {
	t.Helper()
	f, err := newNetNS()
	if err != nil {
		t.Fatal(err)
	}
	id, err := netNSID(f)
	if err != nil {
		t.Fatal(err)
	}
	ns := &Namespace{mode: Transparent, file: f, id: id, log: testLog(t)}
	t.Cleanup(func() { ns.Close() })
	attrs := netlink.NewLinkAttrs()
	attrs.Name = "uplink"
	veth := netlink.NewVeth(attrs)
	veth.PeerName, veth.PeerNamespace = "eth0", netlink.NsFd(f.Fd())
	if err := netlink.LinkAdd(veth); err != nil {
		t.Fatal(err)
	}
	configure := func(name, addr string) error {
		l, err := netlink.LinkByName(name)
		if err != nil {
			return err
		}
		return errors.Join(addAddress(netlink.AddrAdd, l, netip.MustParseAddr(addr), 24), netlink.LinkSetUp(l))
	}
	if err := configure("uplink", "192.0.2.1"); err != nil {
		t.Fatal(err)
	}
	if err := ns.in(func() error { return configure("eth0", "192.0.2.2") }); err != nil {
		t.Fatal(err)
	}
	return ns
}

// On the machine itself, in no sandbox, everything goes away again too.
func TestOnTheMachine(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("transparent capture needs root")
	}
	cfg := testConfig(t, Transparent)
	cfg.Bridge = "hdt" + strconv.Itoa(os.Getpid())
	cfg.PrefixV4, cfg.PrefixV6 = netip.MustParsePrefix("198.18.77.0/24"), netip.Prefix{}
	cfg.Masquerade = false // ip_forward is the machine's
	n, err := OpenNetwork(t.Context(), cfg)
	if err != nil && errors.Is(err, unix.EPERM) {
		t.Skipf("no CAP_NET_ADMIN: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	ns, err := n.NewNamespace(t.Context(), NamespaceConfig{Name: "a", Rules: DefaultRules(Transparent)})
	if err != nil {
		n.Close()
		t.Fatal(err)
	}
	serve(t, ns, "out", ":15001")
	if got := ask(t, ns, "100.96.0.1:80"); got != "out 100.96.0.1:80" {
		t.Errorf("got %q", got)
	}
	veth := ns.veth
	if err := errors.Join(ns.Close(), n.Close()); err != nil {
		t.Error(err)
	}
	if bridgeExists(t, cfg.Bridge) || bridgeExists(t, veth) {
		t.Error("interfaces stayed")
	}
}
