package capture

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// bridgeAlias marks (IFLA_IFALIAS) the bridges that we may remove.
const bridgeAlias = "heddle mesh network"

// makeBridge makes the bridge with the gateway's addresses, or checks that
// the one there is ours. The caller holds the network's lock.
func (n *Network) makeBridge() error {
	link, err := netlink.LinkByName(n.cfg.Bridge)
	var notFound netlink.LinkNotFoundError
	switch {
	case errors.As(err, &notFound):
		if err := n.checkRoutes(0); err != nil {
			return err
		}
		if link, err = n.addBridge(); err != nil {
			return err
		}
	case err != nil:
		return fmt.Errorf("look up bridge: %w", err)
	case link.Type() != "bridge" || link.Attrs().Alias != bridgeAlias:
		return fmt.Errorf("an interface of this name exists (%s) and is not heddle's: choose another with --%s",
			link.Type(), flagBridge)
	}
	if err := n.checkBridgeAddress(link); err != nil {
		return err
	}
	if err := n.checkRoutes(link.Attrs().Index); err != nil {
		return err
	}
	if err := addAddress(netlink.AddrReplace, link, n.GatewayV4(), n.cfg.PrefixV4.Bits()); err != nil {
		return err
	}
	if n.ipv6 {
		if err := addAddress(netlink.AddrReplace, link, n.GatewayV6(), n.cfg.PrefixV6.Bits()); err != nil {
			return err
		}
	}
	if err := netlink.LinkSetUp(link); err != nil {
		return fmt.Errorf("set bridge up: %w", err)
	}
	return nil
}

func (n *Network) addBridge() (netlink.Link, error) {
	attrs := netlink.NewLinkAttrs()
	attrs.Name = n.cfg.Bridge
	// Without a MAC of its own a bridge takes the lowest of its ports', and
	// the gateway's MAC would change as workloads come and go.
	gw := n.GatewayV4().As4()
	attrs.HardwareAddr = net.HardwareAddr{0x02, 0x68, gw[0], gw[1], gw[2], gw[3]}
	// With snooping and no querier on the segment, IPv6 neighbour
	// solicitations (multicast) can get lost after some minutes.
	snooping := false
	if err := netlink.LinkAdd(&netlink.Bridge{LinkAttrs: attrs, MulticastSnooping: &snooping}); err != nil {
		return nil, fmt.Errorf("create bridge: %w", err)
	}
	link, err := netlink.LinkByName(n.cfg.Bridge)
	if err != nil {
		return nil, fmt.Errorf("look up bridge: %w", err)
	}
	if err := netlink.LinkSetAlias(link, bridgeAlias); err != nil {
		return nil, fmt.Errorf("mark bridge: %w", err)
	}
	return link, nil
}

// checkBridgeAddress refuses a bridge that another mesh uses with another prefix.
func (n *Network) checkBridgeAddress(link netlink.Link) error {
	addrs, err := netlink.AddrList(link, unix.AF_INET)
	if err != nil {
		return fmt.Errorf("list bridge addresses: %w", err)
	}
	want := netip.PrefixFrom(n.GatewayV4(), n.cfg.PrefixV4.Bits())
	for _, a := range addrs {
		if got, ok := prefixOf(a.IPNet); ok && got != want {
			return fmt.Errorf("the bridge is in use with address %s, not %s: choose another with --%s", got, want, flagBridge)
		}
	}
	return nil
}

// checkRoutes refuses a prefix that overlaps a route through another
// interface than own: we would hide a part of that network, or it of ours.
func (n *Network) checkRoutes(own int) error {
	prefixes := map[int]netip.Prefix{unix.AF_INET: n.cfg.PrefixV4}
	if n.ipv6 {
		prefixes[unix.AF_INET6] = n.cfg.PrefixV6
	}
	for family, prefix := range prefixes {
		routes, err := netlink.RouteList(nil, family) // main table only
		if err != nil {
			return fmt.Errorf("list routes: %w", err)
		}
		i := slices.IndexFunc(routes, func(r netlink.Route) bool {
			dst, ok := prefixOf(r.Dst)
			return ok && dst.Bits() > 0 && dst.Overlaps(prefix) && (own == 0 || r.LinkIndex != own)
		})
		if i < 0 {
			continue
		}
		flag := flagPrefixV4
		if family == unix.AF_INET6 {
			flag = flagPrefixV6
		}
		return fmt.Errorf("%s overlaps the machine's route %s via %s: choose another network with --%s",
			prefix, routes[i].Dst, linkName(routes[i].LinkIndex), flag)
	}
	return nil
}

// removeBridge removes our bridge if no interface is left on it.
func (n *Network) removeBridge() (bool, error) {
	link, err := netlink.LinkByName(n.cfg.Bridge)
	var notFound netlink.LinkNotFoundError
	if errors.As(err, &notFound) {
		return true, nil
	}
	if err != nil {
		return false, fmt.Errorf("look up bridge: %w", err)
	}
	links, err := netlink.LinkList()
	if err != nil {
		return false, fmt.Errorf("list interfaces: %w", err)
	}
	used := slices.ContainsFunc(links, func(l netlink.Link) bool {
		return l.Attrs().MasterIndex == link.Attrs().Index
	})
	if used || link.Attrs().Alias != bridgeAlias {
		return false, nil
	}
	if err := netlink.LinkDel(link); err != nil {
		return false, fmt.Errorf("remove bridge: %w", err)
	}
	return true, nil
}

// addAddress adds by add (of a handle or the package) without duplicate
// address detection, which would keep an IPv6 address unusable for a second.
func addAddress(add func(netlink.Link, *netlink.Addr) error, link netlink.Link, addr netip.Addr, bits int) error {
	a := &netlink.Addr{IPNet: ipNet(netip.PrefixFrom(addr, bits))}
	if addr.Is6() {
		a.Flags = unix.IFA_F_NODAD
	}
	if err := add(link, a); err != nil {
		return fmt.Errorf("add address %s to %s: %w", addr, link.Attrs().Name, err)
	}
	return nil
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

// prefixOf converts back; it is not ok for nil, a default route of old kernels.
func prefixOf(n *net.IPNet) (netip.Prefix, bool) {
	if n == nil {
		return netip.Prefix{}, false
	}
	addr, ok := netip.AddrFromSlice(n.IP)
	ones, _ := n.Mask.Size()
	return netip.PrefixFrom(addr.Unmap(), ones), ok
}

func linkName(index int) string {
	if l, err := netlink.LinkByIndex(index); err == nil {
		return l.Attrs().Name
	}
	return fmt.Sprintf("interface %d", index)
}
