package dns

import (
	"context"
	"net"
	"strings"

	"github.com/miekg/dns"
)

// maxAliases bounds a chain of external names that lead to each other.
const maxAliases = 8

// names answers for the mesh, with authority.
func (s *Server) names(ctx context.Context, q *query) *dns.Msg {
	t := s.table.Load()
	found := t.lookup(q.name)
	if !found.ours {
		return nil
	}
	m := q.reply(dns.RcodeSuccess)
	m.Authoritative = true
	switch {
	case found.node == nil:
		m.Rcode = dns.RcodeNameError
		m.Ns = t.negative(q, found)
	case q.typ == dns.TypeANY:
		m.Answer = hinfo(q)
	case found.node.rrs(q.typ) != nil:
		m.Answer = s.owned(q, found.node)
		if q.typ == dns.TypeSRV {
			m.Extra = targets(found.node, m.Answer)
		}
	case found.node.rrs(dns.TypeCNAME) != nil:
		s.follow(ctx, t, q, found, m)
	default:
		m.Ns = t.negative(q, found)
	}
	return m
}

// lookup is find for a canonical name in presentation form; t may be nil.
func (t *Table) lookup(name string) match {
	wire, err := wireName(name)
	if t == nil || err != nil {
		return match{}
	}
	return t.find(wire)
}

// owned are the records of the question's type, owned by the name as it was
// asked (short, or with the 0x20 mix of cases), in a rotated order.
func (s *Server) owned(q *query, n *node) []dns.RR {
	rrs := n.rrs(q.typ)
	at := 0
	if len(rrs) > 1 {
		at = s.rotation(len(rrs))
	}
	out := make([]dns.RR, 0, len(rrs))
	for i := range rrs {
		rr := dns.Copy(rrs[(at+i)%len(rrs)])
		rr.Header().Name = q.msg.Question[0].Name
		out = append(out, rr)
	}
	return out
}

// targets are the addresses of the first SRV records' targets, as many as are
// useful: they are optional (RFC 2782), and dropped first when truncating.
func targets(n *node, srvs []dns.RR) []dns.RR {
	const enough = 32
	var out []dns.RR
	seen := make(map[string]bool)
	for _, rr := range srvs[:min(len(srvs), enough)] {
		name := rr.(*dns.SRV).Target
		if target := n.extra[name]; target != nil && !seen[name] {
			seen[name] = true
			out = append(out, target.rrs(dns.TypeA)...)
			out = append(out, target.rrs(dns.TypeAAAA)...)
		}
	}
	// Packing writes into record headers (Rdlength), so never hand out ours.
	for i, rr := range out {
		out[i] = dns.Copy(rr)
	}
	return out
}

func (t *Table) negative(q *query, m match) []dns.RR {
	owner := t.zone.domain
	if m.short {
		owner = q.msg.Question[0].Name
		if m.node == nil {
			next, end := dns.NextLabel(owner, 0)
			if owner = owner[next:]; end || owner == "" {
				owner = "."
			}
		}
	}
	return []dns.RR{t.zone.soa(owner)}
}

// follow answers with an external name's CNAME and, in the same message, with
// what it leads to: in the mesh or outside. The rcode is that of the last name
// of the chain (RFC 6604, section 3).
func (s *Server) follow(ctx context.Context, t *Table, q *query, found match, m *dns.Msg) {
	for range maxAliases {
		cname := dns.Copy(found.node.rrs(dns.TypeCNAME)[0]).(*dns.CNAME)
		cname.Hdr.Name = q.msg.Question[0].Name
		m.Answer = append(m.Answer, cname)
		q = q.about(cname.Target)
		found = t.lookup(q.name)
		switch {
		case !found.ours:
			if q.msg.RecursionDesired {
				s.outside(ctx, q, m)
			}
			return
		case found.node == nil:
			m.Rcode = dns.RcodeNameError
			m.Ns = t.negative(q, found)
			return
		case found.node.rrs(dns.TypeCNAME) != nil:
			continue
		case found.node.rrs(q.typ) == nil:
			m.Ns = t.negative(q, found)
			return
		}
		m.Answer = append(m.Answer, s.owned(q, found.node)...)
		return
	}
	m.Answer, m.Rcode = nil, dns.RcodeServerFailure
}

// outside adds to m what a name outside the mesh leads to.
func (s *Server) outside(ctx context.Context, q *query, m *dns.Msg) {
	rest := specialUse(ctx, q)
	if rest == nil {
		rest = s.forwarded(ctx, q)
	}
	m.Rcode = rest.Rcode
	m.Answer = append(m.Answer, rest.Answer...)
	m.Ns = rest.Ns
}

// unready keeps clients trying until the first table is there.
func (s *Server) unready(_ context.Context, q *query) *dns.Msg {
	if s.table.Load() != nil || !s.config.Zone.claims(q.name) {
		return nil
	}
	return q.reply(dns.RcodeServerFailure)
}

// hold waits, for a service seen the first time, until the hook says that the
// proxy can reach it. Answered it is in any case: the proxy has means of its own.
func (s *Server) hold(ctx context.Context, q *query) *dns.Msg {
	if s.config.Resolve == nil {
		return nil
	}
	m := s.table.Load().lookup(q.name)
	if !m.ours || !s.mustHold(m) {
		return nil
	}
	s.metrics.Held.Add(1)
	ctx, cancel := context.WithTimeout(ctx, holdTimeout)
	defer cancel()
	if s.config.Resolve(ctx, m.entry.host) {
		s.live.Store(m.entry, true)
	}
	return nil
}

// refuse turns away what this server does for nobody.
func refuse(_ context.Context, q *query) *dns.Msg {
	switch {
	case q.msg.Question[0].Qclass != dns.ClassINET:
	case q.typ == 0 || q.typ == dns.TypeOPT:
		return q.reply(dns.RcodeFormatError)
	case q.typ >= 128 && q.typ <= 254: // AXFR, IXFR and other meta types
	default:
		return nil
	}
	return q.reply(dns.RcodeRefused)
}

// specialUse answers names that must not leave the host: localhost (RFC 6761,
// section 6.3) and invalid (6.4).
func specialUse(_ context.Context, q *query) *dns.Msg {
	name := q.msg.Question[0].Name
	m := q.reply(dns.RcodeSuccess)
	switch {
	case q.name == "invalid." || strings.HasSuffix(q.name, ".invalid."):
		m.Rcode = dns.RcodeNameError
	case q.name != "localhost." && !strings.HasSuffix(q.name, ".localhost."):
		return nil
	case q.typ == dns.TypeA:
		m.Answer = []dns.RR{&dns.A{Hdr: header(name, q.typ), A: net.IPv4(127, 0, 0, 1)}}
	case q.typ == dns.TypeAAAA:
		m.Answer = []dns.RR{&dns.AAAA{Hdr: header(name, q.typ), AAAA: net.IPv6loopback}}
	}
	return m
}

// anyIsHINFO answers ANY about the outside at once.
func anyIsHINFO(_ context.Context, q *query) *dns.Msg {
	if q.typ != dns.TypeANY {
		return nil
	}
	m := q.reply(dns.RcodeSuccess)
	m.Answer = hinfo(q)
	return m
}

// hinfo is the answer to ANY that RFC 8482, section 4.2, proposes.
func hinfo(q *query) []dns.RR {
	return []dns.RR{&dns.HINFO{Hdr: header(q.msg.Question[0].Name, dns.TypeHINFO), Cpu: "RFC8482"}}
}
