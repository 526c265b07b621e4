package channel_test

import (
	"encoding/binary"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/resolver"
	"google.golang.org/grpc/resolver/manual"
	"google.golang.org/grpc/status"

	"github.com/heddle-mesh/heddle/identity/channel"
)

// insideEnv says that we are in a network of our own.
const insideEnv = "HEDDLE_CHANNEL_TEST_INSIDE"

// TestSilentMachine: a server whose machine vanishes, its kernel with it, is missed by ours
// without any ping of gRPC's, and the next call goes to another.
func TestSilentMachine(t *testing.T) {
	t.Parallel()
	if os.Getenv(insideEnv) == "" {
		inNetwork(t)
		return
	}
	lo, err := netlink.LinkByName("lo")
	if err == nil {
		err = netlink.LinkSetUp(lo)
	}
	if err != nil {
		t.Fatal(err)
	}
	first, second := watched(t), watched(t)
	replicas := manual.NewBuilderWithScheme("replicas")
	replicas.InitialState(resolver.State{Addresses: []resolver.Address{{Addr: first}}})
	conn, err := grpc.NewClient("replicas:///", append(channel.ClientAlive(), grpc.WithResolvers(replicas), grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: time.Hour, Timeout: 5 * time.Second}))...) // no pings
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	ended := watch(t, healthv1.NewHealthClient(conn))
	quiet(t) // else what is under way would be missed
	drop(t, netip.MustParseAddrPort(first).Port())
	if err := <-ended; status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), "connection timed out") {
		t.Errorf("the stream of the machine that is gone ended with %v", err)
	}
	replicas.UpdateState(resolver.State{Addresses: []resolver.Address{{Addr: second}}})
	select {
	case err := <-watch(t, healthv1.NewHealthClient(conn)):
		t.Errorf("the stream of the other replica ended with %v", err)
	default:
	}
}

// quiet waits until the kernel has the receipt of all that was sent.
func quiet(t *testing.T) {
	t.Helper()
	for tick := time.Tick(10 * time.Millisecond); ; <-tick {
		table, err := os.ReadFile("/proc/net/tcp")
		if err != nil {
			t.Fatal(err)
		}
		sending := false
		for row := range strings.Lines(string(table)) {
			queues := strings.Fields(row)[4]
			sending = sending || strings.Contains(queues, ":") && !strings.HasPrefix(queues, "00000000:")
		}
		if !sending {
			return
		}
	}
}

// inNetwork runs a test again in a network of its own. Whoever is not root is root of it.
func inNetwork(t *testing.T) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe", "-test.run=^"+t.Name()+"$", "-test.v", "-test.timeout=1m")
	cmd.Env = append(os.Environ(), insideEnv+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET, Pdeathsig: unix.SIGKILL}
	if os.Geteuid() != 0 {
		cmd.SysProcAttr.Cloneflags |= unix.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}}
	}
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "PASS") {
		t.Errorf("%v: %s", err, out)
	}
}

// drop loses all packets to and from a port, without a word.
func drop(t *testing.T, port uint16) {
	t.Helper()
	c, err := nftables.New()
	if err != nil {
		t.Fatal(err)
	}
	table := c.AddTable(&nftables.Table{Family: nftables.TableFamilyINet, Name: "unplugged"})
	chain := c.AddChain(&nftables.Chain{
		Name: "in", Table: table, Type: nftables.ChainTypeFilter, Hooknum: nftables.ChainHookInput, Priority: nftables.ChainPriorityFilter,
	})
	for _, offset := range []uint32{0, 2} { // source and destination, in the headers of TCP
		c.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: []expr.Any{
			&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: offset, Len: 2},
			&expr.Cmp{Register: 1, Op: expr.CmpOpEq, Data: binary.BigEndian.AppendUint16(nil, port)},
			&expr.Verdict{Kind: expr.VerdictDrop},
		}})
	}
	if err := c.Flush(); err != nil {
		t.Fatal(err)
	}
}
