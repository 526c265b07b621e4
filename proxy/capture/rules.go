package capture

import (
	"fmt"
	"net/netip"
	"os"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// Rules says what of a workload's traffic goes through its Envoy. Only TCP
// and DNS do; other protocols pass as they are.
type Rules struct {
	OutboundPort, InboundPort uint16 // Envoy's
	DNSPort                   uint16 // the agent's, on 127.0.0.1 and ::1; 0 leaves DNS alone
	// Envoy's sockets: by uid in Transparent, by mark if not 0.
	ProxyUID  uint32
	ProxyMark uint32
	// Left alone. CIDRs are of destinations (Out) and of sources (In).
	ExcludeOutPorts, ExcludeInPorts []uint16
	ExcludeOutCIDRs, ExcludeInCIDRs []netip.Prefix
}

// DefaultRules returns the rules of a mode with nothing excluded.
func DefaultRules(m Mode) Rules {
	r := Rules{OutboundPort: DefaultOutboundPort, InboundPort: DefaultInboundPort, DNSPort: DefaultDNSPort}
	if m == Rootless {
		r.ProxyMark = DefaultProxyMark
	} else {
		r.ProxyUID = DefaultProxyUID
	}
	return r
}

// Validate names the first field that cannot work.
func (r Rules) Validate() error {
	switch {
	case r.OutboundPort == 0 || r.InboundPort == 0 || r.OutboundPort == r.InboundPort:
		return fmt.Errorf("capture ports %d and %d: want two different ports", r.OutboundPort, r.InboundPort)
	case (r.ProxyUID == 0) == (r.ProxyMark == 0):
		return fmt.Errorf("capture rules: want either a uid or a mark for the proxy")
	}
	for _, p := range slices.Concat(r.ExcludeOutCIDRs, r.ExcludeInCIDRs) {
		if !p.IsValid() {
			return fmt.Errorf("capture rules: an excluded CIDR is not valid")
		}
	}
	return nil
}

const captureTable = "heddle_capture"

var (
	loopbackV4 = netip.MustParsePrefix("127.0.0.0/8")
	loopbackV6 = netip.MustParsePrefix("::1/128")
	// InboundSourceV4 and InboundSourceV6 are source addresses that Envoy may
	// bind when its inbound side calls the app at the workload's own address:
	// with them the call is not taken for one to the service and sent to
	// InboundPort again. (Calls to 127.0.0.1 and ::1 need nothing.) The one of IPv6 is
	// put on lo for it: a refusal of what came from ::1 would never arrive there (Linux
	// looks for its way on the interface of the address that was called).
	InboundSourceV4 = netip.MustParseAddr("127.0.0.6")
	InboundSourceV6 = netip.MustParseAddr("::6")
)

// apply loads the rules into the namespace fd, 0 for our own, in one transaction, in
// place of those there.
func (r Rules) apply(fd int) error { return r.applyTo(fd, tableFamily()) }

// tableFamily is INet, of IPv4 and IPv6. A kernel that was built without IPv6 does not
// have it; there IPv4 is all that there is to capture.
func tableFamily() nftables.TableFamily {
	if _, err := os.Stat("/proc/self/net/if_inet6"); err != nil {
		return nftables.TableFamilyIPv4
	}
	return nftables.TableFamilyINet
}

func (r Rules) applyTo(fd int, family nftables.TableFamily) error {
	c, err := nftables.New(nftables.WithNetNSFd(fd))
	if err != nil {
		return fmt.Errorf("open nftables: %w", err)
	}
	t := replaceTable(c, family, captureTable)
	add := func(chain *nftables.Chain, rules ...rule) {
		for _, exprs := range rules {
			c.AddRule(&nftables.Rule{Table: t, Chain: chain, Exprs: exprs})
		}
	}
	proxy := c.AddChain(&nftables.Chain{Name: "proxy_output", Table: t})
	output := c.AddChain(&nftables.Chain{
		Name: "output", Table: t, Type: nftables.ChainTypeNAT,
		Hooknum: nftables.ChainHookOutput, Priority: nftables.ChainPriorityNATDest,
	})
	add(proxy, r.proxyOutput()...)
	add(output, r.output()...)
	// What was redirected arrives with the proxy's port, and so does what
	// somebody sends to the proxy's port himself. Before NAT (raw) they
	// differ: the latter is refused, it would only loop.
	raw := c.AddChain(&nftables.Chain{
		Name: "refuse", Table: t, Type: nftables.ChainTypeFilter,
		Hooknum: nftables.ChainHookPrerouting, Priority: nftables.ChainPriorityRaw,
	})
	add(raw, join(fromOutside(), toPort(unix.IPPROTO_TCP, r.OutboundPort), drop()),
		join(fromOutside(), toPort(unix.IPPROTO_TCP, r.InboundPort), drop()))
	prerouting := c.AddChain(&nftables.Chain{
		Name: "prerouting", Table: t, Type: nftables.ChainTypeNAT,
		Hooknum: nftables.ChainHookPrerouting, Priority: nftables.ChainPriorityNATDest,
	})
	add(prerouting, r.prerouting()...)
	return flush(c)
}

// removeRules takes the rules out of the namespace fd; it is no error if there
// are none.
func removeRules(fd int) error {
	c, err := nftables.New(nftables.WithNetNSFd(fd))
	if err != nil {
		return fmt.Errorf("open nftables: %w", err)
	}
	return deleteTable(c, tableFamily(), captureTable)
}

// output rules what processes of the workload send.
func (r Rules) output() []rule {
	isProxy := metaNumber(expr.MetaKeySKUID, r.ProxyUID)
	if r.ProxyMark != 0 {
		isProxy = metaNumber(expr.MetaKeyMARK, r.ProxyMark)
	}
	out := []rule{
		join(isProxy, jump("proxy_output")),
		join(toPrefix(loopbackV4), accept()),
		join(toPrefix(loopbackV6), accept()),
	}
	if r.DNSPort != 0 {
		// Before all exclusions: an app with another resolver in its own
		// configuration must find the mesh's names too.
		out = append(out,
			join(toPort(unix.IPPROTO_UDP, 53), redirect(r.DNSPort)),
			join(toPort(unix.IPPROTO_TCP, 53), redirect(r.DNSPort)))
	}
	out = append(out, join(toLo(), accept())) // the workload's own addresses
	for _, p := range r.ExcludeOutCIDRs {
		out = append(out, join(toPrefix(p), accept()))
	}
	for _, p := range r.ExcludeOutPorts {
		out = append(out, join(toPort(unix.IPPROTO_TCP, p), accept()))
	}
	return append(out, join(protocol(unix.IPPROTO_TCP), redirect(r.OutboundPort)))
}

// proxyOutput rules what Envoy sends: it goes out as it is, except to the
// workload's own address. That is an app calling its own service, and Envoy
// having picked this very workload; such packets go over lo and never pass
// prerouting's NAT, so they are given to the inbound side here. Without it the
// app would get Envoy's TLS bytes.
func (r Rules) proxyOutput() []rule {
	var out []rule
	for _, source := range []netip.Addr{InboundSourceV4, InboundSourceV6} {
		out = append(out, join(fromPrefix(netip.PrefixFrom(source, source.BitLen())), accept()))
	}
	for _, p := range r.ExcludeInPorts {
		out = append(out, join(toPort(unix.IPPROTO_TCP, p), accept()))
	}
	others := toPorts(expr.CmpOpNeq, firstSidecarPort, lastSidecarPort)
	for _, loopback := range []netip.Prefix{loopbackV4, loopbackV6} {
		out = append(out, join(toLo(), notToPrefix(loopback), others, redirect(r.InboundPort)))
	}
	return append(out, accept())
}

// toLo matches what stays here: what is for an address of ours leaves by lo.
func toLo() rule { return interfaceName(expr.MetaKeyOIFNAME, expr.CmpOpEq, "lo") }

func fromOutside() rule { return interfaceName(expr.MetaKeyIIFNAME, expr.CmpOpNeq, "lo") }

// prerouting rules what comes from other machines and workloads.
func (r Rules) prerouting() []rule {
	var out []rule
	for _, p := range r.ExcludeInCIDRs {
		out = append(out, join(fromPrefix(p), accept()))
	}
	for _, p := range r.ExcludeInPorts {
		out = append(out, join(toPort(unix.IPPROTO_TCP, p), accept()))
	}
	return append(out, join(fromOutside(),
		toPorts(expr.CmpOpNeq, firstSidecarPort, lastSidecarPort), redirect(r.InboundPort)))
}
