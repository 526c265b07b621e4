package dns

import (
	"context"

	"github.com/miekg/dns"
)

const (
	// maxUDP is the largest UDP message we send and the size we advertise: what
	// fits an IPv6 packet of minimum MTU (DNS flag day 2020, RFC 9715).
	maxUDP = 1232
	maxTCP = dns.MaxMsgSize
)

// udpLimit is what a client that advertises size gets at most (RFC 6891,
// section 6.2.3: less than 512 means 512).
func udpLimit(size uint16) int { return min(max(int(size), dns.MinMsgSize), maxUDP) }

// query is one query on the whole road.
type query struct {
	msg  *dns.Msg
	name string // canonical: lower case, with the final dot
	typ  uint16
	opt  *dns.OPT // nil without EDNS
}

// A handler answers a query or returns nil to leave it to the next one.
type handler func(ctx context.Context, q *query) *dns.Msg

// handlers is the order in which a query is tried. The last always answers.
func (s *Server) handlers() []handler {
	return []handler{
		refuse,      // what nobody gets
		specialUse,  // localhost and invalid
		s.unready,   // names of the mesh before there is a table
		s.hold,      // wait until the proxy can reach the service
		s.names,     // names of the mesh
		anyIsHINFO,  // ANY about the outside
		s.forwarded, // the outside
	}
}

// answer is the whole road: the reply to raw message req, or nil where silence
// is right (RFC 9619, RFC 6895): too short for a header, or a response.
func (s *Server) answer(ctx context.Context, req []byte, udp bool) []byte {
	if len(req) < headerSize || req[2]&0x80 != 0 {
		s.metrics.Malformed.Add(1)
		return nil
	}
	q, rcode := parseQuery(req)
	if rcode != dns.RcodeSuccess {
		s.metrics.count(rcode, false)
		return errorReply(req, rcode)
	}
	limit := maxTCP
	if udp {
		limit = dns.MinMsgSize
		if q.opt != nil {
			limit = udpLimit(q.opt.UDPSize())
		}
	}
	wire := s.pack(q, s.reply(ctx, q), limit)
	if wire == nil {
		s.metrics.count(dns.RcodeServerFailure, false)
		return errorReply(req, dns.RcodeServerFailure)
	}
	return wire
}

// reply runs the handlers.
func (s *Server) reply(ctx context.Context, q *query) *dns.Msg {
	if q.opt != nil && q.opt.Version() != 0 {
		return q.reply(dns.RcodeBadVers) // RFC 6891, section 6.1.3
	}
	for _, h := range s.chain {
		if m := h(ctx, q); m != nil {
			return m
		}
	}
	return q.reply(dns.RcodeServerFailure)
}

// parseQuery unpacks req; an rcode other than success says what is wrong.
func parseQuery(req []byte) (*query, int) {
	if opcode := req[2] >> 3 & 15; opcode != dns.OpcodeQuery {
		return nil, dns.RcodeNotImplemented
	}
	// One question exactly (RFC 9619), and no records but additional ones.
	// The counts are read here so that no unpacking is spent on liars.
	if req[4] != 0 || req[5] != 1 || req[6]|req[7]|req[8]|req[9] != 0 {
		return nil, dns.RcodeFormatError
	}
	m := new(dns.Msg)
	if err := m.Unpack(req); err != nil || len(m.Question) != 1 {
		return nil, dns.RcodeFormatError
	}
	q := &query{msg: m, name: dns.CanonicalName(m.Question[0].Name), typ: m.Question[0].Qtype}
	for _, rr := range m.Extra {
		opt, ok := rr.(*dns.OPT)
		if !ok {
			continue
		}
		if q.opt != nil || opt.Hdr.Name != "." { // RFC 6891, section 6.1.1
			return nil, dns.RcodeFormatError
		}
		q.opt = opt
	}
	return q, dns.RcodeSuccess
}

// reply begins a reply: the question as it came, RA, and the OPT record if the
// client sent one. Options of the query are ignored, as RFC 6891 asks.
func (q *query) reply(rcode int) *dns.Msg {
	m := new(dns.Msg)
	m.SetReply(q.msg)
	m.Rcode = rcode
	m.RecursionAvailable = true
	m.Compress = true
	return m
}

// about is the same query about another name.
func (q *query) about(name string) *query {
	next := *q
	next.name = dns.CanonicalName(name)
	next.msg = q.msg.Copy()
	next.msg.Question[0].Name = name
	return &next
}

// pack adds OPT, truncates to limit and packs; nil if the reply cannot be packed.
func (s *Server) pack(q *query, m *dns.Msg, limit int) []byte {
	if q.opt != nil {
		m.SetEdns0(maxUDP, q.opt.Do())
	} else if m.Rcode > 15 {
		m.Rcode = dns.RcodeServerFailure // needs EDNS to be said
	}
	if m.Truncate(limit); m.Truncated {
		s.metrics.Truncated.Add(1)
	}
	wire, err := m.Pack()
	if err != nil || len(wire) > limit {
		return nil
	}
	s.metrics.count(m.Rcode, len(m.Answer) == 0)
	return wire
}

// errorReply is a bare header: what can be said to a message not understood.
func errorReply(req []byte, rcode int) []byte {
	b := make([]byte, headerSize)
	copy(b, req[:4])
	b[2] = b[2]&0x79 | 0x80 // keep opcode and RD
	b[3] = 0x80 | byte(rcode&15)
	return b
}
