package dns

import (
	"context"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
)

// TestRealClients asks as applications do: Go's resolver and libc's (getent),
// by way of a rendered /etc/resolv.conf with its search path. For that the test
// runs itself again in network and mount namespaces of its own.
func TestRealClients(t *testing.T) {
	if os.Getenv("HEDDLE_DNS_TEST_INSIDE") != "" {
		realClients(t)
		return
	}
	cmd := exec.Command(os.Args[0], "-test.run=^TestRealClients$", "-test.v")
	cmd.Env = append(os.Environ(), "HEDDLE_DNS_TEST_INSIDE=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNET | syscall.CLONE_NEWNS,
		UidMappings: []syscall.SysProcIDMap{{HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{HostID: os.Getgid(), Size: 1}},
	}
	out, err := cmd.CombinedOutput()
	if len(out) == 0 && err != nil {
		t.Skipf("no user namespaces here: %v", err)
	}
	if err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

func realClients(t *testing.T) {
	lo, err := netlink.LinkByName("lo")
	if err == nil {
		err = netlink.LinkSetUp(lo)
	}
	if err == nil { // with only 127.0.0.1, libc thinks there is no IPv4 (AI_ADDRCONFIG)
		err = netlink.AddrAdd(lo, &netlink.Addr{IPNet: netlink.NewIPNet(net.IPv4(10, 68, 0, 2))})
	}
	if err != nil {
		t.Fatal(err)
	}
	conf := filepath.Join(t.TempDir(), "resolv.conf")
	if err := os.WriteFile(conf, Resolvconf("default", "cluster.local", netip.MustParseAddr("127.0.0.1")), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""); err != nil {
		t.Skipf("mount namespace: %v", err)
	}
	if err := syscall.Mount(conf, "/etc/resolv.conf", "", syscall.MS_BIND, ""); err != nil {
		t.Skipf("bind resolv.conf: %v", err)
	}
	u, err := net.ListenPacket("udp", "127.0.0.1:53")
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:53")
	if err != nil {
		t.Fatal(err)
	}
	s := newServer(t, Config{}, append(shop(), crowd("many", 200))...)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx, []net.PacketConn{u}, []net.Listener{l}) }()
	t.Run("Go", goClient)
	t.Run("libc", libcClient)
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func goClient(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	r := &net.Resolver{PreferGo: true}
	for name, want := range map[string][]string{
		"api":                              {"100.96.0.1", "fd68:6564:646c:2::1"},
		"api.default":                      {"100.96.0.1", "fd68:6564:646c:2::1"},
		"api.default.svc":                  {"100.96.0.1", "fd68:6564:646c:2::1"},
		"api.default.svc.cluster.local":    {"100.96.0.1", "fd68:6564:646c:2::1"},
		"API.":                             {"100.96.0.1", "fd68:6564:646c:2::1"},
		"only4":                            {"100.96.0.2"},
		"only6.other":                      {"fd68:6564:646c:2::2"},
		"db-0.db":                          {"10.68.0.3", "fd68::3"},
		"alias":                            {"100.96.0.1", "fd68:6564:646c:2::1"},
		"alias4.default.svc.cluster.local": {"100.96.0.2"},
	} {
		got, err := r.LookupHost(ctx, name)
		slices.Sort(got)
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("%s: %v, %v, want %v", name, got, err, want)
		}
	}
	if got, err := r.LookupHost(ctx, "many"); err != nil || len(got) != 200 {
		t.Errorf("many: %d addresses, %v: truncated and not asked again over TCP?", len(got), err)
	}
	_, srvs, err := r.LookupSRV(ctx, "pg", "tcp", "db.default.svc.cluster.local")
	if err != nil || len(srvs) != 3 {
		t.Errorf("SRV: %v, %v", srvs, err)
	}
	if got, err := r.LookupAddr(ctx, "100.96.0.1"); err != nil || !slices.Equal(got, []string{"api.default.svc.cluster.local."}) {
		t.Errorf("PTR: %v, %v", got, err)
	}
	_, err = r.LookupHost(ctx, "nope.default.svc.cluster.local.")
	if e, ok := err.(*net.DNSError); !ok || !e.IsNotFound {
		t.Errorf("no such service: %v", err)
	}
}

func libcClient(t *testing.T) {
	getent, err := exec.LookPath("getent")
	if err != nil {
		t.Skip("no getent")
	}
	for name, want := range map[string]string{
		"api": "100.96.0.1", "api.default": "100.96.0.1", "only4": "100.96.0.2", "db-0.db": "10.68.0.3", "alias4": "100.96.0.2",
	} {
		out, err := exec.Command(getent, "ahostsv4", name).CombinedOutput()
		if err != nil || !strings.HasPrefix(string(out), want) {
			t.Errorf("getent ahostsv4 %s: %s %v, want %s", name, out, err, want)
		}
	}
}
