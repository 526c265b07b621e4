package capture

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// link joins the namespace to the bridge and gives it addresses and routes.
func (ns *Namespace) link(ctx context.Context) error {
	if err := ns.addVeth(); err != nil {
		return err
	}
	h, err := netlink.NewHandleAt(netns.NsHandle(ns.file.Fd()))
	if err != nil {
		return fmt.Errorf("open netlink in the namespace: %w", err)
	}
	defer h.Close()
	lo, err := h.LinkByName("lo")
	if err != nil {
		return fmt.Errorf("look up lo: %w", err)
	}
	if err := h.LinkSetUp(lo); err != nil {
		return fmt.Errorf("set lo up: %w", err)
	}
	eth, err := h.LinkByName("eth0")
	if err != nil {
		return fmt.Errorf("look up eth0: %w", err)
	}
	if err := addAddress(h.AddrAdd, eth, ns.lease.V4, ns.net.cfg.PrefixV4.Bits()); err != nil {
		return err
	}
	if ns.lease.V6.IsValid() {
		if err := addAddress(h.AddrAdd, eth, ns.lease.V6, ns.net.cfg.PrefixV6.Bits()); err != nil {
			return err
		}
		// 127.0.0.6 is on lo anyhow, its IPv6 counterpart is not.
		if err := addAddress(h.AddrAdd, lo, InboundSourceV6, 128); err != nil {
			return err
		}
	}
	if err := h.LinkSetUp(eth); err != nil {
		return fmt.Errorf("set eth0 up: %w", err)
	}
	// Service addresses are on no interface. A packet is routed before the
	// output chain sees it, so without a default route a connection to them
	// would fail before it could be redirected, also where there is no outside.
	gateways := map[netip.Addr]string{ns.net.GatewayV4(): "0.0.0.0/0"}
	if ns.lease.V6.IsValid() {
		gateways[ns.net.GatewayV6()] = "::/0"
	}
	for gw, all := range gateways {
		route := &netlink.Route{LinkIndex: eth.Attrs().Index, Dst: ipNet(netip.MustParsePrefix(all)), Gw: gw.AsSlice()}
		if err := h.RouteReplace(route); err != nil {
			return fmt.Errorf("add default route by %s: %w", gw, err)
		}
	}
	if ns.lease.V6.IsValid() {
		return awaitLocal(ctx, h, ns.lease.V6, InboundSourceV6)
	}
	return nil
}

// awaitLocal waits until the namespace knows the addresses as its own. Even
// without duplicate address detection the kernel makes an IPv6 address's local
// route in a work queue, some milliseconds after the address was added; until
// then a packet to it, such as the agent's first DNS answer, is lost.
func awaitLocal(ctx context.Context, h *netlink.Handle, addrs ...netip.Addr) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for {
		local := &netlink.Route{Table: unix.RT_TABLE_LOCAL}
		routes, err := h.RouteListFiltered(unix.AF_INET6, local, netlink.RT_FILTER_TABLE)
		if err != nil {
			return fmt.Errorf("list local routes: %w", err)
		}
		known := 0
		for _, r := range routes {
			dst, ok := prefixOf(r.Dst)
			if ok && r.Type == unix.RTN_LOCAL && slices.Contains(addrs, dst.Addr()) {
				known++
			}
		}
		if known == len(addrs) {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("wait for addresses %v to be usable: %w", addrs, ctx.Err())
		}
	}
}

// addVeth makes the pair with its far end born inside the namespace, so
// that the name eth0 never has to be free on the machine.
func (ns *Namespace) addVeth() error {
	bridge, err := netlink.LinkByName(ns.net.cfg.Bridge)
	if err != nil {
		return fmt.Errorf("look up bridge: %w", err)
	}
	// Unique on the machine and within 15 characters: the bridge's index and
	// the address's offset. The lease is ours, so an interface of this name
	// was left by somebody dead, whose orphans may keep the other end alive.
	name := fmt.Sprintf("hd%x.%x", bridge.Attrs().Index, ns.lease.offset)
	if old, err := netlink.LinkByName(name); err == nil {
		if err := netlink.LinkDel(old); err != nil {
			return fmt.Errorf("remove leftover %s: %w", name, err)
		}
	}
	attrs := netlink.NewLinkAttrs()
	attrs.Name = name
	attrs.MasterIndex = bridge.Attrs().Index
	veth := netlink.NewVeth(attrs)
	veth.PeerName = "eth0"
	veth.PeerHardwareAddr = ns.lease.MAC()
	veth.PeerNamespace = netlink.NsFd(ns.file.Fd())
	if err := netlink.LinkAdd(veth); err != nil {
		return fmt.Errorf("create veth %s: %w", name, err)
	}
	ns.veth = name
	if err := netlink.LinkSetUp(veth); err != nil {
		return fmt.Errorf("set %s up: %w", name, err)
	}
	return nil
}
