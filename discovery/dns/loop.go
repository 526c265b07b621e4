package dns

import (
	"net"
	"net/netip"
)

// addrOf is the address a socket listens on; invalid if it has none.
func addrOf(a net.Addr) netip.AddrPort {
	var at netip.AddrPort
	switch a := a.(type) {
	case *net.UDPAddr:
		at = a.AddrPort()
	case *net.TCPAddr:
		at = a.AddrPort()
	}
	return netip.AddrPortFrom(at.Addr().Unmap().WithZone(""), at.Port())
}

// leadsBack reports whether a query sent to to arrives at one of listening,
// in the same network namespace.
func leadsBack(to netip.AddrPort, listening []netip.AddrPort) bool {
	addr := to.Addr().Unmap().WithZone("")
	for _, l := range listening {
		if l.Port() == to.Port() && (l.Addr() == addr || l.Addr().IsUnspecified() && isLocal(addr)) {
			return true
		}
	}
	return false
}

func isLocal(addr netip.Addr) bool {
	if addr.IsLoopback() || addr.IsUnspecified() {
		return true
	}
	list, err := net.InterfaceAddrs()
	if err != nil {
		return true // better no answer than a loop
	}
	for _, a := range list {
		if n, ok := a.(*net.IPNet); ok {
			if own, ok := netip.AddrFromSlice(n.IP); ok && own.Unmap() == addr {
				return true
			}
		}
	}
	return false
}
