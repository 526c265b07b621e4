package capture

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// NamespaceConfig describes one workload's namespace.
type NamespaceConfig struct {
	// Name of the workload instance: key of its lease, so the same name gets
	// the same addresses again.
	Name string
	// Named makes the namespace visible by its Name to other processes, see
	// NetworkConfig.NamedDir.
	Named bool
	Rules Rules
}

// Namespace is a network namespace of one workload. Those that HostNamespace and
// PodNamespace return stand for the one that we are in.
type Namespace struct {
	mode  Mode
	file  *os.File // nil in Explicit and Pod
	id    uint64
	net   *Network // nil if not made here
	lease *Lease   // nil if not made here
	mount string   // path of a named one, else empty
	veth  string   // the machine's end
	log   *slog.Logger
}

// NewNamespace makes a namespace with addresses, routes and capture rules.
// If it returns an error nothing is left of it.
func (n *Network) NewNamespace(ctx context.Context, cfg NamespaceConfig) (*Namespace, error) {
	if err := cfg.Rules.Validate(); err != nil {
		return nil, err
	}
	if cfg.Named && (strings.Contains(cfg.Name, "/") || strings.HasPrefix(cfg.Name, ".")) {
		return nil, fmt.Errorf("namespace name %q: not a file name", cfg.Name)
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	lease, err := n.Allocate(cfg.Name)
	if err != nil {
		return nil, err
	}
	ns := &Namespace{mode: n.cfg.Mode, net: n, lease: lease, log: n.cfg.Log}
	if err := ns.setUp(ctx, cfg); err != nil {
		return nil, errors.Join(fmt.Errorf("namespace %s: %w", cfg.Name, err), ns.Close())
	}
	return ns, nil
}

func (ns *Namespace) setUp(ctx context.Context, cfg NamespaceConfig) (err error) {
	if ns.file, err = newNetNS(); err != nil {
		return err
	}
	if ns.id, err = netNSID(ns.file); err != nil {
		return err
	}
	// The rules come first: there is no moment in which traffic could pass
	// around the proxy.
	if err := cfg.Rules.apply(int(ns.file.Fd())); err != nil {
		return err
	}
	ns.setSysctls()
	if err := ns.link(ctx); err != nil {
		return err
	}
	if cfg.Named {
		return ns.bind(cfg.Name)
	}
	return nil
}

// SetRules replaces the capture rules at once: every connection meets either
// the old or the new ones. Connections already made keep their way.
func (ns *Namespace) SetRules(r Rules) error {
	if ns.file == nil {
		return errors.New("no capture rules in mode explicit")
	}
	if err := r.Validate(); err != nil {
		return err
	}
	return r.apply(int(ns.file.Fd()))
}

// RemoveRules stops capturing new connections.
func (ns *Namespace) RemoveRules() error {
	if ns.file == nil {
		return nil
	}
	return removeRules(int(ns.file.Fd()))
}

// setSysctls only warns: in some containers /proc/sys is read-only.
func (ns *Namespace) setSysctls() {
	values := [][2]string{{"net/ipv4/ip_unprivileged_port_start", "0"}} // any app may bind port 80
	if ns.lease.V6.IsValid() {
		for _, iface := range []string{"all", "default", "lo"} {
			values = append(values, [2]string{"net/ipv6/conf/" + iface + "/disable_ipv6", "0"})
		}
		// Also the link-local address is to be usable at once.
		values = append(values, [2]string{"net/ipv6/conf/default/accept_dad", "0"},
			[2]string{"net/ipv6/conf/default/accept_ra", "0"})
	}
	err := inNetNS(int(ns.file.Fd()), func() error {
		var errs []error
		for _, v := range values {
			errs = append(errs, writeSysctl(v[0], v[1]))
		}
		return errors.Join(errs...)
	})
	if err != nil {
		ns.log.Warn("a setting of the workload's namespace was refused", "workload", ns.lease.Key, "err", err)
	}
}

// bind makes the namespace visible as a file, as `ip netns add` does.
func (ns *Namespace) bind(name string) error {
	dir := ns.net.namedDir()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("create namespace directory: %w", err)
	}
	path := filepath.Join(dir, name)
	// We hold the lease of this name, so what is there was left behind.
	removeNamed(path)
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_RDONLY, 0o444)
	if err != nil {
		return fmt.Errorf("create namespace file: %w", err)
	}
	f.Close()
	ns.mount = path
	source := fmt.Sprintf("/proc/self/fd/%d", ns.file.Fd())
	if err := unix.Mount(source, path, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("mount namespace at %s: %w", path, err)
	}
	return nil
}

func (n *Network) namedDir() string {
	switch {
	case n.cfg.NamedDir != "":
		return n.cfg.NamedDir
	case n.cfg.Mode == Rootless:
		return filepath.Join(n.cfg.StateDir, "netns")
	}
	return "/run/netns"
}

func removeNamed(path string) {
	_ = unix.Unmount(path, unix.MNT_DETACH)
	_ = os.Remove(path)
}

// Close removes the namespace from the network and frees its addresses.
// Processes still in it go on, cut off.
func (ns *Namespace) Close() error {
	var errs []error
	if ns.mount != "" {
		removeNamed(ns.mount)
	}
	if ns.veth != "" {
		var notFound netlink.LinkNotFoundError
		link, err := netlink.LinkByName(ns.veth)
		if err == nil {
			err = netlink.LinkDel(link) // and its peer
		}
		if err != nil && !errors.As(err, &notFound) {
			errs = append(errs, fmt.Errorf("remove %s: %w", ns.veth, err))
		}
	}
	if ns.file != nil {
		errs = append(errs, ns.file.Close())
	}
	if ns.lease != nil {
		errs = append(errs, ns.lease.Close())
	}
	return errors.Join(errs...)
}

// HostNamespace stands for the machine's own network, for mode Explicit:
// sockets and processes are as anywhere, nothing is captured.
func HostNamespace(log *slog.Logger) *Namespace { return &Namespace{mode: Explicit, log: log} }

// PodNamespace stands for the namespace that we are in, in mode Pod.
func PodNamespace(log *slog.Logger) *Namespace { return &Namespace{mode: Pod, log: log} }

// OpenNamespace opens an existing namespace by its path, such as a named one's
// or /proc/PID/ns/net, to start processes or open sockets in it. mode is the
// one it was made in. Close leaves it as it is.
func OpenNamespace(path string, mode Mode, log *slog.Logger) (*Namespace, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("open namespace: %w", err)
	}
	id, err := netNSID(f)
	if err != nil {
		f.Close()
		return nil, err
	}
	return &Namespace{mode: mode, file: f, id: id, log: log}, nil
}

// Mode returns the mode it was made in.
func (ns *Namespace) Mode() Mode { return ns.mode }

// Path returns the path of a named namespace, else "".
func (ns *Namespace) Path() string { return ns.mount }

// AddrV4 returns the workload's address; not valid if not made by a Network.
func (ns *Namespace) AddrV4() netip.Addr {
	if ns.lease == nil {
		return netip.Addr{}
	}
	return ns.lease.V4
}

// AddrV6 is as AddrV4, and not valid either if the network has no IPv6.
func (ns *Namespace) AddrV6() netip.Addr {
	if ns.lease == nil {
		return netip.Addr{}
	}
	return ns.lease.V6
}
