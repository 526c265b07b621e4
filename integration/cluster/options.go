package cluster

import (
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"regexp"
	"strings"
)

// Options of a cluster.
type Options struct {
	Name  string // of its cgroups; clusters of one name cannot run at once
	Dir   string // for everything it writes; made, and removed by Close
	Nodes int    // 1 to 9; node i is called ni and is in zone zi
	// Images are archives that every node has from the start.
	Images []string
	// Detach lets the cluster live on when the caller has ended.
	Detach bool
	Log    io.Writer // progress, a line at a time; nil = none
}

var nameForm = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?$`)

// Validate returns everything that is wrong.
func (o Options) Validate() error {
	var errs []error
	if !nameForm.MatchString(o.Name) {
		errs = append(errs, fmt.Errorf("cluster name %q: want lower-case letters, digits and dashes", o.Name))
	}
	if o.Nodes < 1 || o.Nodes > 9 {
		errs = append(errs, fmt.Errorf("%d nodes: want 1 to 9", o.Nodes))
	}
	if o.Dir == "" {
		errs = append(errs, errors.New("a cluster needs a directory"))
	}
	if os.Geteuid() != 0 {
		errs = append(errs, errors.New("a cluster needs root: containers, namespaces and cgroups are made"))
	}
	if missing := missingPrograms(); len(missing) > 0 {
		errs = append(errs, fmt.Errorf("missing on this machine: %s; on Debian: apt-get install %s", strings.Join(missing, ", "), strings.Join(Packages, " ")))
	}
	return errors.Join(errs...)
}

// Packages are the Debian packages that a cluster needs.
var Packages = []string{"containerd", "runc", "containernetworking-plugins", "nftables", "iptables", "ipset", "iproute2", "util-linux"}

// debianCNIDir is where Debian puts the CNI plugins. A node has folders of its own at the
// usual places, in which it may be given more.
const (
	debianCNIDir = "/usr/lib/cni"
	cniBinDir    = "/opt/cni/bin"
	cniConfDir   = "/etc/cni/net.d"
)

func missingPrograms() []string {
	var out []string
	for _, program := range []string{"containerd", "ctr", "runc", "nft", "iptables", "ipset", "nsenter", debianCNIDir + "/ptp"} {
		if _, err := exec.LookPath(program); err != nil {
			out = append(out, program)
		}
	}
	return out
}

// plan is the addresses of a cluster: the same in all, since no two share a network.
type plan struct{ nodes int }

const (
	serviceCIDRs = "10.96.0.0/16,fd00:96::/112"
	podCIDRs     = "10.90.0.0/16,fd00:90::/48"
	balancerCIDR = "10.97.0.0/16" // addresses of Services of type LoadBalancer
	dnsIP        = "10.96.0.10"
	fabricIP     = "10.89.0.1"
	fabricIP6    = "fd00:89::1"
)

func (plan) node(i int) (v4, v6 netip.Addr) {
	return netip.AddrFrom4([4]byte{10, 89, 0, byte(10 + i)}), netip.MustParseAddr(fmt.Sprintf("fd00:89::%d", 10+i))
}

// pods are the ranges of a node's pods.
func (plan) pods(i int) (v4, v6 netip.Prefix) {
	return netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 90, byte(i), 0}), 24), netip.MustParsePrefix(fmt.Sprintf("fd00:90:0:%d::/64", i))
}

func nodeName(i int) string { return fmt.Sprintf("n%d", i) }
