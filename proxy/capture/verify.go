package capture

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"
)

// ErrNotCaptured is the error of Verify where there are no rules.
var ErrNotCaptured = errors.New("the capture rules are not there")

// ExitNotCaptured is the exit code of a sidecar that found no rules. The CNI plugin's
// repair knows the pod by it.
const ExitNotCaptured = 79

// verifyPorts are asked in turn: a port that the pod leaves out of the mesh is not captured.
var verifyPorts = []uint16{1, 15100, 65535}

// verifyPatience is for a connection inside of one machine.
const verifyPatience = time.Second

// Verify finds out without any right whether a pod has its rules. What the sidecar's user
// sends to an address of its own pod is given to Envoy's inbound port: before there is an
// Envoy, we listen there and call ourselves. All rules are loaded in one step, so that one
// of them proves the others.
func Verify(ctx context.Context, addrs []netip.Addr) error {
	for _, addr := range addrs {
		if err := verify(ctx, addr); err != nil {
			return fmt.Errorf("verify the capture of %s: %w", addr, err)
		}
	}
	return nil
}

func verify(ctx context.Context, addr netip.Addr) error {
	loopback := netip.MustParseAddr("127.0.0.1")
	if addr.Is6() {
		loopback = netip.IPv6Loopback()
	}
	var config net.ListenConfig
	l, err := config.Listen(ctx, "tcp", netip.AddrPortFrom(loopback, DefaultInboundPort).String())
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	callers := make(chan string)
	accepted := make(chan struct{})
	go func() {
		defer close(accepted)
		for {
			c, err := l.Accept()
			if err != nil {
				return // closed
			}
			select {
			case callers <- c.RemoteAddr().String():
			case <-ctx.Done():
			}
			c.Close()
		}
	}()
	defer func() { cancel(); l.Close(); <-accepted }()
	for _, port := range verifyPorts {
		if reaches(ctx, netip.AddrPortFrom(addr, port), callers) {
			return nil
		}
	}
	return ErrNotCaptured
}

// reaches tells whether a connection to an address ends at the one who tells the callers.
func reaches(ctx context.Context, to netip.AddrPort, callers <-chan string) bool {
	ctx, cancel := context.WithTimeout(ctx, verifyPatience)
	defer cancel()
	var d net.Dialer
	c, err := d.DialContext(ctx, "tcp", to.String())
	if err != nil {
		return false
	}
	defer c.Close()
	for {
		select {
		case who := <-callers:
			if who == c.LocalAddr().String() {
				return true
			}
		case <-ctx.Done():
			return false // somebody else took it
		}
	}
}
