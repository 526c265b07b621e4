package capture

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/spf13/pflag"
)

// NetworkConfig describes the machine's mesh network. Several networks live
// side by side if their Bridge and both prefixes differ.
type NetworkConfig struct {
	Mode     Mode         // Transparent or Rootless
	Bridge   string       // interface name, at most 15 characters
	PrefixV4 netip.Prefix // the first address is the gateway's
	PrefixV6 netip.Prefix // as PrefixV4; the zero value means no IPv6
	// Masquerade lets workloads reach the outside with the machine's
	// address. In Rootless there is no outside, and it does nothing.
	Masquerade bool
	// StateDir keeps leases and locks. All processes of one mesh on this
	// machine share it. Created 0700.
	StateDir string
	// NamedDir is where named namespaces are mounted; empty means
	// /run/netns, where `ip netns` looks, in Transparent and StateDir/netns
	// in Rootless.
	NamedDir string
	Log      *slog.Logger
}

// DefaultNetworkConfig returns the addresses that DESIGN promises.
// StateDir and Mode are the caller's to set.
func DefaultNetworkConfig() NetworkConfig {
	return NetworkConfig{
		Mode:       Transparent,
		Bridge:     "heddle0",
		PrefixV4:   netip.MustParsePrefix("10.68.0.0/16"),
		PrefixV6:   netip.MustParsePrefix("fd68:6564:646c:1::/64"),
		Masquerade: true,
	}
}

// Names of the flags, as messages quote them.
const (
	flagBridge     = "mesh-bridge"
	flagPrefixV4   = "mesh-network-v4"
	flagPrefixV6   = "mesh-network-v6"
	flagMasquerade = "mesh-masquerade"
)

// Flags declares the flags of a network on fs.
func (c *NetworkConfig) Flags(fs *pflag.FlagSet) {
	fs.StringVar(&c.Bridge, flagBridge, c.Bridge, "bridge of the mesh's network on this machine")
	fs.TextVar(&c.PrefixV4, flagPrefixV4, c.PrefixV4, "IPv4 network of the workloads")
	fs.TextVar(&c.PrefixV6, flagPrefixV6, c.PrefixV6, "IPv6 network of the workloads")
	fs.BoolVar(&c.Masquerade, flagMasquerade, c.Masquerade, "let workloads reach the outside through this machine")
}

// Validate names the first field that cannot work.
func (c NetworkConfig) Validate() error {
	switch {
	case c.Mode != Transparent && c.Mode != Rootless:
		return fmt.Errorf("capture mode %s has no network", c.Mode)
	case c.Bridge == "" || c.Bridge == "." || c.Bridge == ".." || len(c.Bridge) > 15 || strings.ContainsAny(c.Bridge, "/: \t\n%"):
		return fmt.Errorf("--%s %q: not an interface name of 1 to 15 characters", flagBridge, c.Bridge)
	case !c.PrefixV4.Addr().Is4() || c.PrefixV4.Bits() > 29 || c.PrefixV4.Bits() < 8:
		return fmt.Errorf("--%s %s: want an IPv4 prefix of 8 to 29 bits", flagPrefixV4, c.PrefixV4)
	case c.PrefixV6.IsValid() && (!c.PrefixV6.Addr().Is6() || c.PrefixV6.Bits() > 96):
		return fmt.Errorf("--%s %s: want an IPv6 prefix of at most 96 bits", flagPrefixV6, c.PrefixV6)
	case c.StateDir == "":
		return errors.New("network: no state directory")
	case c.Log == nil:
		return errors.New("network: no logger")
	}
	return nil
}

// Network is this process's hold on the machine's mesh network.
type Network struct {
	cfg    NetworkConfig
	dir    string // StateDir/networks/BRIDGE: lock, leases/, holders/
	ipv6   bool
	holder *os.File
}

// OpenNetwork makes the network, or joins it if it is there already. If a
// prefix overlaps a route of the machine the error names the route and the
// flag to change.
func OpenNetwork(ctx context.Context, cfg NetworkConfig) (*Network, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	n := &Network{cfg: cfg, dir: filepath.Join(cfg.StateDir, "networks", cfg.Bridge)}
	for _, d := range []string{"leases", "holders"} {
		if err := os.MkdirAll(filepath.Join(n.dir, d), 0o700); err != nil {
			return nil, fmt.Errorf("create state directory: %w", err)
		}
	}
	lock, err := lockFile(filepath.Join(n.dir, "lock"))
	if err != nil {
		return nil, err
	}
	defer lock.Close()
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	n.ipv6 = cfg.PrefixV6.IsValid() && machineHasIPv6()
	if cfg.PrefixV6.IsValid() && !n.ipv6 {
		cfg.Log.Warn("IPv6 is disabled on this machine: the mesh goes on with IPv4 only", "bridge", cfg.Bridge)
	}
	if err := n.makeBridge(); err != nil {
		return nil, fmt.Errorf("network %s: %w", cfg.Bridge, err)
	}
	if cfg.Masquerade && cfg.Mode == Transparent {
		if err := n.masquerade(); err != nil {
			return nil, fmt.Errorf("network %s: masquerade: %w", cfg.Bridge, err)
		}
	}
	return n, n.hold()
}

// IPv6 says whether workloads get IPv6 addresses.
func (n *Network) IPv6() bool { return n.ipv6 }

// GatewayV4 is the machine's own address in the network, first of its prefix.
func (n *Network) GatewayV4() netip.Addr { return addrAt(n.cfg.PrefixV4, 1) }

// GatewayV6 is as GatewayV4; not valid without IPv6.
func (n *Network) GatewayV6() netip.Addr {
	if !n.ipv6 {
		return netip.Addr{}
	}
	return addrAt(n.cfg.PrefixV6, 1)
}

// hold leaves a locked file that tells others that we use the network.
func (n *Network) hold() error {
	for i := 0; ; i++ {
		name := strconv.Itoa(os.Getpid()) + "-" + strconv.Itoa(i)
		f, err := TryLockFile(filepath.Join(n.dir, "holders", name))
		if errors.Is(err, ErrHeld) {
			continue
		}
		n.holder = f
		return err
	}
}

// Close gives up this process's hold. The last one removes the bridge and the
// masquerade table, unless somebody else has put an interface on the bridge.
// Close it after its namespaces.
func (n *Network) Close() error {
	lock, err := lockFile(filepath.Join(n.dir, "lock"))
	if err != nil {
		return err
	}
	defer lock.Close()
	os.Remove(n.holder.Name())
	n.holder.Close()
	others, err := livingHolders(filepath.Join(n.dir, "holders"))
	if err != nil || others {
		return err
	}
	removed, err := n.removeBridge()
	if err != nil || !removed {
		return err
	}
	return n.removeMasquerade()
}

// livingHolders says whether any file of dir is locked, and removes those
// whose holder is gone.
func livingHolders(dir string) (bool, error) {
	files, err := os.ReadDir(dir)
	if err != nil {
		return false, fmt.Errorf("read holders: %w", err)
	}
	for _, f := range files {
		path := filepath.Join(dir, f.Name())
		lock, err := TryLockFile(path)
		if errors.Is(err, ErrHeld) {
			return true, nil
		}
		if err != nil {
			return false, err
		}
		os.Remove(path)
		lock.Close()
	}
	return false, nil
}

// machineHasIPv6 respects an administrator who switched IPv6 off for all or
// for new interfaces, or a kernel without it.
func machineHasIPv6() bool {
	for _, which := range []string{"all", "default"} {
		v, err := os.ReadFile("/proc/sys/net/ipv6/conf/" + which + "/disable_ipv6")
		if err != nil || strings.TrimSpace(string(v)) != "0" {
			return false
		}
	}
	return true
}
