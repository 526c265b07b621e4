package dns

import (
	"bytes"
	"fmt"
	"net/netip"
	"strings"

	"github.com/miekg/dns"
)

// TTL is how long, in seconds, clients may keep what we answer, positive or
// negative. CoreDNS's default for Kubernetes is the same: long enough to spare
// a burst of connects the query, short enough for headless endpoints that go.
const TTL = 5

// schemaVersion is what the TXT record dns-version.DOMAIN tells (section 2.2
// of the specification).
const schemaVersion = "1.1.0"

// Zone is the part of the name space that this server owns: everything under
// the cluster domain, and the reverse names of the mesh's address ranges.
// Its names are kept in wire form, lower case: that is what lookups compare.
type Zone struct {
	domain    string // "cluster.local."
	wire      []byte // domain in wire form, with the final zero
	labels    int    // of domain
	namespace string // the workload's own
	own       []byte // namespace as one wire label
	reverse   []netip.Prefix
	beside    bool  // see Beside
	version   *node // dns-version.DOMAIN
	apex      *node // DOMAIN itself
	soaLong   []byte
	soaShort  []byte
}

// NewZone makes the zone of a cluster domain ("cluster.local" when empty) as
// seen by a workload of namespace. For addresses in the reverse ranges the
// server is the authority: an unknown one is NXDOMAIN and never forwarded.
func NewZone(domain, namespace string, reverse ...netip.Prefix) (*Zone, error) {
	if domain == "" {
		domain = "cluster.local"
	}
	z := &Zone{domain: dns.CanonicalName(domain), namespace: strings.ToLower(namespace)}
	var err error
	if z.wire, err = wireName(z.domain); err != nil || z.domain == "." || len(z.wire) > 128 || !plain(z.domain) {
		return nil, fmt.Errorf("DNS zone: %q is not a usable cluster domain", domain)
	}
	z.labels = dns.CountLabel(z.domain)
	own, err := wireName(z.namespace + ".")
	if err != nil || dns.CountLabel(z.namespace+".") != 1 || !plain(z.namespace) {
		return nil, fmt.Errorf("DNS zone: %q is not a namespace", namespace)
	}
	z.own = own[:len(own)-1]
	for _, p := range reverse {
		if !p.IsValid() || p.Addr().Is4In6() {
			return nil, fmt.Errorf("DNS zone: reverse range %s is not usable", p)
		}
		z.reverse = append(z.reverse, p.Masked())
	}
	if err := z.pack(); err != nil {
		return nil, fmt.Errorf("DNS zone: %w", err)
	}
	return z, nil
}

// Beside is the same zone where the cluster has a DNS server of its own, as Kubernetes has:
// only whole names that the table has are answered here. All else is that server's: names
// of services that the mesh does not know, short and reverse names, and everything
// until there is a table.
func (z *Zone) Beside() *Zone {
	out := *z
	out.beside = true
	return &out
}

// pack makes the records that belong to the zone and to no service.
func (z *Zone) pack() error {
	z.apex = &node{name: z.domain, sets: []rrset{{dns.TypeSOA, []dns.RR{z.soa(z.domain)}}}}
	version := "dns-version." + z.domain
	z.version = &node{name: version, sets: []rrset{{dns.TypeTXT, []dns.RR{
		&dns.TXT{Hdr: header(version, dns.TypeTXT), Txt: []string{schemaVersion}},
	}}}}
	long, err := packRR(z.soa(z.domain))
	if err != nil {
		return err
	}
	z.soaLong = long
	// The same for short names: the owner is a pointer into the question.
	z.soaShort = append(bytes.Clone(questionPointer), long[len(z.wire):]...)
	return nil
}

// soa is the record of the authority section of a negative answer (RFC 2308,
// section 3). Its owner is the domain; for names outside (short and reverse
// ones) it is the name itself if that exists, else the name's parent, since no
// zone of ours contains them.
func (z *Zone) soa(owner string) dns.RR {
	return &dns.SOA{
		Hdr: header(owner, dns.TypeSOA), Ns: "ns.dns." + z.domain, Mbox: "hostmaster." + z.domain,
		// Nobody transfers this zone, so the serial need not move.
		Serial: 1, Refresh: 7200, Retry: 1800, Expire: 86400, Minttl: TTL,
	}
}

// claims reports whether a name that the table cannot judge yet, because there
// is no table, may well be ours. Until then such names get SERVFAIL, which
// clients retry, and not a false NXDOMAIN from upstream.
func (z *Zone) claims(name string) bool {
	if z.beside {
		return false
	}
	if dns.IsSubDomain(z.domain, name) {
		return true
	}
	if addr, ok := reverseAddr(name); ok {
		return z.ownsAddr(addr) || addr.IsPrivate() // maybe an endpoint's
	}
	labels := dns.SplitDomainName(name)
	switch len(labels) {
	case 0:
		return false
	case 1:
		return true
	}
	last := labels[len(labels)-1]
	return last == "svc" || len(labels) == 2 && last == z.namespace
}

func (z *Zone) ownsAddr(addr netip.Addr) bool {
	for _, p := range z.reverse {
		if p.Contains(addr) {
			return true
		}
	}
	return false
}

// reverseAddr is the address a whole reverse name of in-addr.arpa or ip6.arpa
// stands for (RFC 1035 section 3.5, RFC 3596 section 2.5). name is lower case.
func reverseAddr(name string) (netip.Addr, bool) {
	if s, ok := strings.CutSuffix(name, ".in-addr.arpa."); ok {
		parts := strings.Split(s, ".")
		if len(parts) != 4 {
			return netip.Addr{}, false
		}
		addr, err := netip.ParseAddr(parts[3] + "." + parts[2] + "." + parts[1] + "." + parts[0])
		return addr, err == nil
	}
	s, ok := strings.CutSuffix(name, ".ip6.arpa.")
	if !ok || len(s) != 63 {
		return netip.Addr{}, false
	}
	var text [39]byte // 8 groups of 4 digits and 7 colons, filled from its end
	for i, at := 0, len(text)-1; i < 63; i += 2 {
		if i > 0 && s[i-1] != '.' || s[i] == '.' {
			return netip.Addr{}, false
		}
		if i > 0 && i%8 == 0 {
			text[at] = ':'
			at--
		}
		text[at] = s[i]
		at--
	}
	addr, err := netip.ParseAddr(string(text[:]))
	return addr, err == nil && addr.Is6()
}

// wireName is the uncompressed wire form of a presentation-form name.
func wireName(name string) ([]byte, error) {
	buf := make([]byte, 256)
	n, err := dns.PackDomainName(name, buf, 0, nil, false)
	if err != nil {
		return nil, err
	}
	return buf[:n], nil
}

// plain reports whether a lower-case name has only characters of host names,
// and so is the same in presentation form and on the wire.
func plain(name string) bool {
	return strings.Trim(name, "abcdefghijklmnopqrstuvwxyz0123456789-_.") == ""
}

func packRR(rr dns.RR) ([]byte, error) {
	buf := make([]byte, dns.Len(rr)+16)
	n, err := dns.PackRR(rr, buf, 0, nil, false)
	if err != nil {
		return nil, err
	}
	return buf[:n:n], nil
}

func header(name string, rrtype uint16) dns.RR_Header {
	return dns.RR_Header{Name: name, Rrtype: rrtype, Class: dns.ClassINET, Ttl: TTL}
}
