package capture

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// The tests run in throwaway network and mount namespaces, so that they
// disturb nothing on the machine and leave nothing behind, whatever happens:
// the test binary starts itself again in one, as root and as a plain user.

const (
	sandboxEnv = "HEDDLE_CAPTURE_SANDBOX" // the mode; set in the sandbox only
	plainEnv   = "HEDDLE_CAPTURE_PLAIN"   // UID:GID of the plain user; set on the way to its sandbox, and there
	helperEnv  = "HEDDLE_CAPTURE_HELPER"  // see helper_test.go
	plainUID   = 65534
)

func TestMain(m *testing.M) {
	if os.Getenv("GORACE") == "" {
		os.Setenv("GORACE", "atexit_sleep_ms=0") // children would each take a second to exit
	}
	switch {
	case IsChild(os.Args):
		os.Exit(Main(os.Args[2:]))
	case os.Getenv(helperEnv) != "":
		if err := helper(os.Args[1:]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// eachMode runs body as root and as a plain user, each in a sandbox.
func eachMode(t *testing.T, body func(t *testing.T, m Mode)) {
	inSandbox(t, []Mode{Transparent, Rootless}, body)
}

func inSandbox(t *testing.T, modes []Mode, body func(t *testing.T, m Mode)) {
	if name := os.Getenv(sandboxEnv); name != "" {
		m, err := ParseMode(name)
		if err != nil {
			t.Fatal(err)
		}
		prepareSandbox(t)
		body(t, m)
		return
	}
	if os.Getenv(plainEnv) != "" {
		enterAsPlainUser(t)
		return
	}
	for _, m := range modes {
		t.Run(m.String(), func(t *testing.T) {
			cmd := selfTest(t, t.Name()[:strings.LastIndexByte(t.Name(), '/')])
			if m == Transparent {
				if os.Geteuid() != 0 {
					t.Skip("transparent capture needs root")
				}
				cmd.Env = append(os.Environ(), sandboxEnv+"="+m.String())
				cmd.SysProcAttr.Cloneflags = unix.CLONE_NEWNET | unix.CLONE_NEWNS
			} else {
				uid, gid := os.Geteuid(), os.Getegid()
				if uid == 0 {
					uid, gid = plainUID, plainUID
					cmd.SysProcAttr.Credential = &syscall.Credential{Uid: plainUID, Gid: plainUID}
					cmd.Env = append(cmd.Env, "HOME=/nonexistent")
				}
				cmd.Env = append(append(os.Environ(), cmd.Env...), fmt.Sprintf("%s=%d:%d", plainEnv, uid, gid))
			}
			runTest(t, cmd)
		})
	}
}

// enterAsPlainUser goes the way that `heddle up` goes.
func enterAsPlainUser(t *testing.T) {
	if os.Geteuid() == 0 {
		t.Fatal("still root")
	}
	cmd, err := EnterRootless(t.Context(), RootlessExec{
		Argv: testArgs(t.Name()),
		Env:  append(os.Environ(), sandboxEnv+"="+Rootless.String()),
	})
	if err != nil {
		t.Fatal(err)
	}
	runTest(t, cmd)
}

func testArgs(name string) []string {
	args := []string{"-test.run=^" + name + "$", "-test.timeout=2m"}
	if testing.Verbose() {
		args = append(args, "-test.v")
	}
	return args
}

func selfTest(t *testing.T, name string) *exec.Cmd {
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe", testArgs(name)...)
	cmd.SysProcAttr = &syscall.SysProcAttr{}
	return cmd
}

func runTest(t *testing.T, cmd *exec.Cmd) {
	t.Helper()
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.WaitDelay = 5 * time.Second
	err := cmd.Run()
	text := strings.TrimSpace(out.String())
	if err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	if strings.Contains(text, "--- SKIP") {
		t.Skip(text)
	}
	if testing.Verbose() {
		t.Log(text)
	}
}

func prepareSandbox(t *testing.T) {
	if err := privateMounts(); err != nil {
		t.Fatal(err)
	}
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		t.Fatal(err)
	}
	if err := netlink.LinkSetUp(lo); err != nil {
		t.Fatal(err)
	}
}

func testLog(t *testing.T) *slog.Logger {
	return slog.New(slog.NewTextHandler(t.Output(), nil))
}

func testConfig(t *testing.T, m Mode) NetworkConfig {
	cfg := DefaultNetworkConfig()
	cfg.Mode, cfg.StateDir, cfg.Log = m, t.TempDir(), testLog(t)
	cfg.NamedDir = t.TempDir()
	return cfg
}

func openNetwork(t *testing.T, cfg NetworkConfig) *Network {
	t.Helper()
	n, err := OpenNetwork(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := n.Close(); err != nil {
			t.Errorf("close network: %v", err)
		}
	})
	return n
}

func newNamespace(t *testing.T, n *Network, cfg NamespaceConfig) *Namespace {
	t.Helper()
	if cfg.Rules.OutboundPort == 0 {
		cfg.Rules = DefaultRules(n.cfg.Mode)
	}
	ns, err := n.NewNamespace(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := ns.Close(); err != nil {
			t.Errorf("close namespace: %v", err)
		}
	})
	return ns
}

// serve answers every connection to addr inside ns with "NAME DST", where DST
// is the original destination, as Envoy reads it.
func serve(t *testing.T, ns *Namespace, name, addr string) {
	t.Helper()
	l, err := ns.Listen(t.Context(), "tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			fmt.Fprintf(c, "%s %s", name, originalDestination(c.(*net.TCPConn)))
			c.Close()
		}
	}()
	t.Cleanup(func() { l.Close(); <-done })
}

// originalDestination is the address that the client had asked for.
func originalDestination(c *net.TCPConn) netip.AddrPort {
	raw, err := c.SyscallConn()
	if err != nil {
		return netip.AddrPort{}
	}
	local := c.LocalAddr().(*net.TCPAddr).AddrPort()
	out := netip.AddrPortFrom(local.Addr().Unmap(), local.Port())
	_ = raw.Control(func(fd uintptr) {
		if out.Addr().Is4() {
			// The option fills a sockaddr_in; any 16-byte struct will do to fetch it.
			if m, err := unix.GetsockoptIPv6Mreq(int(fd), unix.SOL_IP, unix.SO_ORIGINAL_DST); err == nil {
				b := m.Multiaddr
				out = netip.AddrPortFrom(netip.AddrFrom4([4]byte(b[4:8])), uint16(b[2])<<8|uint16(b[3]))
			}
			return
		}
		if m, err := unix.GetsockoptIPv6MTUInfo(int(fd), unix.SOL_IPV6, unix.SO_ORIGINAL_DST); err == nil {
			p := m.Addr.Port // in network byte order
			out = netip.AddrPortFrom(netip.AddrFrom16(m.Addr.Addr), p<<8|p>>8)
		}
	})
	return out
}

// ask connects from ns as an app would and returns what it is told.
func ask(t *testing.T, ns *Namespace, addr string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	c, err := ns.Dial(ctx, "tcp", addr)
	if err != nil {
		return err.Error()
	}
	defer c.Close()
	return readAnswer(c)
}

// run starts e in ns and returns its output, both streams, and exit code.
func run(t *testing.T, ns *Namespace, e Exec) (string, int) {
	t.Helper()
	var out bytes.Buffer
	e.Stdout, e.Stderr = &out, &out
	cmd, err := ns.Command(t.Context(), e)
	if err != nil {
		t.Fatal(err)
	}
	if err := ns.Start(cmd); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	return strings.TrimSpace(out.String()), cmd.ProcessState.ExitCode()
}

// helperExec runs this test binary's helper in a namespace.
func helperExec(args ...string) Exec {
	return Exec{Argv: append([]string{"/proc/self/exe"}, args...), Env: append(os.Environ(), helperEnv+"=1")}
}
