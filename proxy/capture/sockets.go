package capture

import (
	"context"
	"fmt"
	"net"
	"net/netip"
)

// in runs f on a thread inside the namespace.
func (ns *Namespace) in(f func() error) error {
	if ns.file == nil {
		return f()
	}
	return inNetNS(int(ns.file.Fd()), f)
}

// Listen listens inside the namespace. A socket belongs for ever to the
// namespace it was made in; the listener can be used from any goroutine.
func (ns *Namespace) Listen(ctx context.Context, network, addr string) (net.Listener, error) {
	var l net.Listener
	// Since Go 1.24 listeners speak MPTCP by default; SO_ORIGINAL_DST cannot be
	// read from an MPTCP socket, and it would announce further addresses.
	var lc net.ListenConfig
	lc.SetMultipathTCP(false)
	err := ns.in(func() (err error) {
		l, err = lc.Listen(ctx, network, addr)
		return err
	})
	if err != nil && l != nil {
		l.Close()
		l = nil
	}
	return l, err
}

// ListenPacket is as Listen, for UDP.
func (ns *Namespace) ListenPacket(ctx context.Context, network, addr string) (net.PacketConn, error) {
	var c net.PacketConn
	err := ns.in(func() (err error) {
		var lc net.ListenConfig
		c, err = lc.ListenPacket(ctx, network, addr)
		return err
	})
	if err != nil && c != nil {
		c.Close()
		c = nil
	}
	return c, err
}

// Dial connects from inside the namespace. addr must be a literal IP and
// port: for names net.Dial starts further goroutines, on threads that are not
// inside.
func (ns *Namespace) Dial(ctx context.Context, network, addr string) (net.Conn, error) {
	if _, err := netip.ParseAddrPort(addr); err != nil {
		return nil, fmt.Errorf("dial in namespace: %w", err)
	}
	var c net.Conn
	err := ns.in(func() (err error) {
		d := net.Dialer{FallbackDelay: -1}
		d.SetMultipathTCP(false)
		c, err = d.DialContext(ctx, network, addr)
		return err
	})
	if err != nil && c != nil {
		c.Close()
		c = nil
	}
	return c, err
}
