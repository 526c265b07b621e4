package capture

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/google/nftables"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// PodDNSPort is where the agent of a pod answers DNS: it is not root there, and cannot
// have port 53.
const PodDNSPort = 15053

// PodRules are the rules of a pod with nothing excluded. Agent and Envoy are one user
// there, DefaultProxyUID, and what either sends is left alone.
func PodRules() Rules {
	r := DefaultRules(Transparent)
	r.DNSPort = PodDNSPort
	return r
}

// Apply loads the rules into the network namespace at path, such as /proc/PID/ns/net, in
// place of those of an earlier call; "" is our own. It takes CAP_NET_ADMIN in it and, for
// another namespace than our own, CAP_SYS_ADMIN.
func (r Rules) Apply(ctx context.Context, path string) error {
	if err := r.Validate(); err != nil {
		return err
	}
	return inPath(path, func(fd int) error { return errors.Join(r.apply(fd), addInboundSource(ctx, fd)) })
}

// addInboundSource puts InboundSourceV6 on the loopback interface of the namespace fd, if
// that has IPv6.
func addInboundSource(ctx context.Context, fd int) error {
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if fd != 0 {
		h, err = netlink.NewHandleAt(netns.NsHandle(fd), unix.NETLINK_ROUTE)
	}
	if err != nil {
		return fmt.Errorf("open netlink: %w", err)
	}
	defer h.Close()
	lo, err := h.LinkByName("lo")
	if err != nil {
		return fmt.Errorf("look up lo: %w", err)
	}
	if has, err := h.AddrList(lo, unix.AF_INET6); err != nil || len(has) == 0 {
		return nil
	}
	if err := addAddress(h.AddrReplace, lo, InboundSourceV6, 128); err != nil {
		return err
	}
	return awaitLocal(ctx, h, InboundSourceV6)
}

// RemoveRules takes the rules out of the network namespace at path, "" for our own. It is
// no error if there are none.
func RemoveRules(path string) error { return inPath(path, removeRules) }

// Applied reports whether the network namespace at path, "" for our own, has rules.
func Applied(path string) (there bool, err error) {
	err = inPath(path, func(fd int) error {
		c, err := nftables.New(nftables.WithNetNSFd(fd))
		if err != nil {
			return fmt.Errorf("open nftables: %w", err)
		}
		tables, err := c.ListTablesOfFamily(tableFamily())
		if err != nil {
			return fmt.Errorf("list nftables tables: %w", err)
		}
		for _, t := range tables {
			there = there || t.Name == captureTable
		}
		return nil
	})
	return there, err
}

// inPath calls f with a descriptor of the namespace at path, 0 for our own.
func inPath(path string, f func(fd int) error) error {
	if path == "" {
		return f(0)
	}
	file, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("open network namespace: %w", err)
	}
	defer file.Close()
	return f(int(file.Fd()))
}
