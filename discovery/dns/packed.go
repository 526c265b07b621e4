package dns

import (
	"encoding/binary"

	"github.com/miekg/dns"
)

// The packed road: answers to plain questions about the mesh, made by copying
// bytes that were packed with the table. It knows three answers: addresses,
// NODATA and NXDOMAIN (every search path produces plenty). Whatever it
// does not fully understand it leaves to the whole road by returning nil.

const (
	headerSize = 12
	optSize    = 11 // an OPT record without options (RFC 6891, section 6.1.2)

	flagQR = 1 << 15
	flagAA = 1 << 10
	flagTC = 1 << 9
	flagRD = 1 << 8
	flagRA = 1 << 7
	flagAD = 1 << 5
	flagCD = 1 << 4
)

// A question is a query's question as the packed road reads it.
type question struct {
	name   [256]byte // wire form, lower case
	length int       // of the name, with the final zero
	qtype  uint16
	flags  uint16
	edns   bool
	do     bool
	limit  int // what the answer must fit in
}

// parse reads req if it is plain: a standard query for one uncompressed
// name of class IN and a data type, with at most an empty OPT record.
func (q *question) parse(req []byte, udp bool) bool {
	if len(req) < headerSize+5 {
		return false
	}
	q.flags = binary.BigEndian.Uint16(req[2:])
	if q.flags&^(flagRD|flagAD|flagCD) != 0 ||
		binary.BigEndian.Uint64(req[4:])&^1 != 1<<48 { // QD 1, AN 0, NS 0, AR 0 or 1
		return false
	}
	rest := q.parseName(req[headerSize:])
	if len(rest) < 4 {
		return false
	}
	q.qtype = binary.BigEndian.Uint16(rest)
	// 0 is reserved, 41 is OPT, 128 to 255 ask for more than data (RFC 6895, 3.1).
	if q.qtype == 0 || q.qtype == dns.TypeOPT || q.qtype >= 128 && q.qtype <= 255 ||
		binary.BigEndian.Uint16(rest[2:]) != dns.ClassINET {
		return false
	}
	q.limit = maxTCP
	if udp {
		q.limit = dns.MinMsgSize
	}
	return q.parseOPT(rest[4:], req[11] == 1, udp)
}

// parseName lowers the name into q and returns what follows, nil if it is odd.
func (q *question) parseName(b []byte) []byte {
	i := 0
	for {
		if i >= len(b) || i >= 255 {
			return nil
		}
		c := b[i]
		if c > 63 {
			return nil
		}
		q.name[i] = c
		i++
		if c == 0 {
			q.length = i
			return b[i:]
		}
		end := i + int(c)
		if end >= len(b) || end >= 255 {
			return nil
		}
		for ; i < end; i++ {
			q.name[i] = lower[b[i]]
		}
	}
}

func (q *question) parseOPT(b []byte, want, udp bool) bool {
	if !want {
		return len(b) == 0
	}
	// Root owner, type 41, no extended code, version 0, no options.
	if len(b) != optSize || b[0] != 0 || b[1] != 0 || b[2] != 41 ||
		b[5] != 0 || b[6] != 0 || b[9] != 0 || b[10] != 0 {
		return false
	}
	q.edns, q.do = true, b[7]&0x80 != 0
	if udp {
		q.limit = udpLimit(binary.BigEndian.Uint16(b[3:]))
	}
	return true
}

// packed appends the answer to req to dst, or returns nil to decline.
func (s *Server) packed(dst, req []byte, udp bool) []byte {
	t := s.table.Load()
	var q question
	if t == nil || !q.parse(req, udp) {
		return nil
	}
	m := t.find(q.name[:q.length])
	set := m.packed(q.qtype)
	if !m.ours || s.mustHold(m) || len(set.wire) > q.limit {
		return nil
	}
	b := append(dst, req[:headerSize+q.length+4]...)
	flags := flagQR | flagAA | flagRA | q.flags&(flagRD|flagCD)
	var answers, authority uint16
	switch {
	case set.count > 0:
		answers = uint16(set.count)
		b = s.appendRotated(b, set)
	case m.node != nil && (m.node.rrs(q.qtype) != nil || m.node.rrs(dns.TypeCNAME) != nil):
		return nil // records that are not packed
	default:
		authority = 1
		if m.node == nil {
			flags |= dns.RcodeNameError
		}
		b = t.zone.appendSOA(b, m, q.name[0])
	}
	var additional uint16
	if q.edns {
		additional = 1
		b = appendOPT(b, q.do)
	}
	if len(b)-len(dst) > q.limit {
		return nil // to be truncated
	}
	h := b[len(dst):]
	binary.BigEndian.PutUint16(h[2:], flags)
	binary.BigEndian.PutUint16(h[6:], answers)
	binary.BigEndian.PutUint16(h[8:], authority)
	binary.BigEndian.PutUint16(h[10:], additional)
	s.metrics.Packed.Add(1)
	s.metrics.count(int(flags&15), answers == 0)
	return b
}

func (m match) packed(qtype uint16) packed {
	switch {
	case m.node == nil:
	case qtype == dns.TypeA:
		return m.node.a
	case qtype == dns.TypeAAAA:
		return m.node.aaaa
	}
	return packed{}
}

// appendRotated starts at another record each time, so that clients that take
// the first address spread over all.
func (s *Server) appendRotated(b []byte, set packed) []byte {
	if set.count == 1 {
		return append(b, set.wire...)
	}
	at := s.rotation(set.count) * (len(set.wire) / set.count)
	return append(append(b, set.wire[at:]...), set.wire[:at]...)
}

// appendSOA appends the authority section of a negative answer. first is the
// length of the question's first label.
func (z *Zone) appendSOA(b []byte, m match, first byte) []byte {
	if !m.short {
		return append(b, z.soaLong...)
	}
	at := len(b) + 1
	b = append(b, z.soaShort...)
	if m.node == nil {
		b[at] += first + 1
	}
	return b
}

func appendOPT(b []byte, do bool) []byte {
	var flags byte
	if do {
		flags = 0x80
	}
	return append(b, 0, 0, 41, maxUDP>>8, maxUDP&0xff, 0, 0, flags, 0, 0, 0)
}

// lower maps ASCII capitals to small letters (RFC 4343), all else to itself.
var lower = func() (t [256]byte) {
	for i := range t {
		t[i] = byte(i)
		if 'A' <= i && i <= 'Z' {
			t[i] += 'a' - 'A'
		}
	}
	return t
}()
