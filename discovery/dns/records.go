package dns

import (
	"bytes"
	"net/netip"
	"strings"

	"github.com/miekg/dns"

	"github.com/heddle-mesh/heddle/discovery/dns/namepb"
)

// An entry is everything under one service's name. Immutable.
type entry struct {
	host  *namepb.Host
	key   string           // wire labels of S and NS, the key in the table
	nodes map[string]*node // by the wire labels left of S; "" is the service itself
	ptrs  []pointer        // reverse records that lead here

	made map[record]bool // while it is built: what is there already
}

// record tells two records of one entry apart.
type record struct {
	owner, target string
	addr          netip.Addr
	port          uint32
}

type pointer struct {
	addr   netip.Addr
	target string
}

// A node is a name with its records. One without records exists all the same:
// an empty non-terminal (RFC 8020), whose every answer is NODATA.
type node struct {
	name    string  // full and canonical
	sets    []rrset // by type, in the order they were added
	a, aaaa packed
	extra   map[string]*node // targets of SRV records, for the additional section
}

type rrset struct {
	rrtype uint16
	rrs    []dns.RR
}

// packed is an address RRset as it goes onto the wire: count records of equal
// size, each owned by a pointer to the question.
type packed struct {
	count int
	wire  []byte
}

// questionPointer is a compression pointer (RFC 1035, section 4.1.4) to the
// name right after the message's header.
var questionPointer = []byte{0xc0, 12}

// rrs returns the records of one type, nil for none.
func (n *node) rrs(rrtype uint16) []dns.RR {
	for i := range n.sets {
		if n.sets[i].rrtype == rrtype {
			return n.sets[i].rrs
		}
	}
	return nil
}

func (n *node) add(rr dns.RR) {
	rrtype := rr.Header().Rrtype
	for i := range n.sets {
		if n.sets[i].rrtype == rrtype {
			n.sets[i].rrs = append(n.sets[i].rrs, rr)
			return
		}
	}
	n.sets = append(n.sets, rrset{rrtype, []dns.RR{rr}})
}

// addAddr adds an address to a node.
func (e *entry) addAddr(n *node, addr netip.Addr) {
	switch {
	case !e.first(record{owner: n.name, addr: addr}):
	case addr.Is4():
		n.add(&dns.A{Hdr: header(n.name, dns.TypeA), A: addr.AsSlice()})
	default:
		n.add(&dns.AAAA{Hdr: header(n.name, dns.TypeAAAA), AAAA: addr.AsSlice()})
	}
}

// first reports whether r has not been made before, and notes it.
func (e *entry) first(r record) bool {
	if e.made[r] {
		return false
	}
	e.made[r] = true
	return true
}

// newEntry makes the records of one checked host. The section numbers are
// those of the specification.
func newEntry(z *Zone, h *namepb.Host) (*entry, error) {
	e := &entry{host: h, key: hostKey(h.Namespace, h.Name), nodes: make(map[string]*node),
		made: make(map[record]bool)}
	defer func() { e.made = nil }()
	name := h.Name + "." + h.Namespace + ".svc." + z.domain
	if _, err := wireName(name); err != nil {
		return nil, err
	}
	switch {
	case h.ExternalName != "": // 2.5
		target := dns.CanonicalName(h.ExternalName)
		e.node("", name).add(&dns.CNAME{Hdr: header(name, dns.TypeCNAME), Target: target})
	case h.Headless:
		e.addHeadless(name)
	default: // 2.3
		root := e.node("", name)
		for _, b := range h.VirtualIps {
			addr, _ := netip.AddrFromSlice(b)
			e.addAddr(root, addr)
			e.addPointer(addr, name)
		}
		for _, p := range h.Ports {
			e.addSRV(name, p, root)
		}
	}
	for _, n := range e.nodes {
		if err := n.pack(); err != nil {
			return nil, err
		}
	}
	return e, nil
}

// addHeadless adds what section 2.4 asks for. Without a ready endpoint there is
// no node at all, and so NXDOMAIN, as 2.4.1 wants.
func (e *entry) addHeadless(name string) {
	for _, ep := range e.host.Endpoints {
		if !ep.Ready && !e.host.PublishNotReady {
			continue
		}
		root := e.node("", name)
		ports := ep.Ports
		if len(ports) == 0 {
			ports = e.host.Ports
		}
		for _, b := range ep.Addresses {
			addr, _ := netip.AddrFromSlice(b)
			hostname := ep.Hostname
			if hostname == "" {
				hostname = dashed(addr)
			}
			target := e.node(wireLabel(hostname), hostname+"."+name)
			e.addAddr(root, addr)
			e.addAddr(target, addr)
			e.addPointer(addr, target.name)
			for _, p := range ports {
				e.addSRV(name, p, target)
			}
		}
	}
}

func (e *entry) node(prefix, name string) *node {
	n := e.nodes[prefix]
	if n == nil {
		n = &node{name: name}
		e.nodes[prefix] = n
	}
	return n
}

func (e *entry) addPointer(addr netip.Addr, target string) {
	if e.first(record{target: target, addr: addr}) {
		e.ptrs = append(e.ptrs, pointer{addr, target})
	}
}

// addSRV adds the record of a named port (2.3.2, 2.4.2) that leads to target.
// All targets weigh the same; the specification leaves the numbers open.
func (e *entry) addSRV(name string, p *namepb.Port, target *node) {
	if p.Name == "" {
		return
	}
	proto := "_" + strings.ToLower(strings.TrimPrefix(p.Protocol.String(), "PROTOCOL_"))
	e.node(wireLabel(proto), proto+"."+name) // an empty non-terminal
	owner := "_" + p.Name + "." + proto + "." + name
	n := e.node(wireLabel("_"+p.Name)+wireLabel(proto), owner)
	if !e.first(record{owner: owner, target: target.name, port: p.Number}) {
		return
	}
	if n.extra == nil {
		n.extra = make(map[string]*node)
	}
	n.extra[target.name] = target
	n.add(&dns.SRV{
		Hdr: header(owner, dns.TypeSRV), Weight: 100, Port: uint16(p.Number), Target: target.name,
	})
}

// pack prepares the address records for the packed road.
func (n *node) pack() error {
	for _, set := range n.sets {
		var into *packed
		switch set.rrtype {
		case dns.TypeA:
			into = &n.a
		case dns.TypeAAAA:
			into = &n.aaaa
		default:
			continue
		}
		for _, rr := range set.rrs {
			wire, err := packRR(rr)
			if err != nil {
				return err
			}
			owner := bytes.IndexByte(wire, 0) + 1 // length bytes are never 0, nor are letters
			into.wire = append(append(into.wire, questionPointer...), wire[owner:]...)
			into.count++
		}
	}
	return nil
}

// dashed is the host name of an endpoint that was given none. A label must not
// begin or end in a hyphen, so "::1" becomes "0--1", as in CoreDNS.
func dashed(addr netip.Addr) string {
	s := strings.NewReplacer(".", "-", ":", "-").Replace(addr.WithZone("").String())
	if strings.HasPrefix(s, "-") {
		s = "0" + s
	}
	if strings.HasSuffix(s, "-") {
		s += "0"
	}
	return s
}

func wireLabel(label string) string { return string(rune(len(label))) + label }

func hostKey(namespace, name string) string {
	return wireLabel(strings.ToLower(name)) + wireLabel(strings.ToLower(namespace))
}
