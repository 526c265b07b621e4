package dns

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/heddle-mesh/heddle/discovery/dns/namepb"
)

// serve runs s on loopback, UDP and TCP on the same port, until the test ends.
func serve(t testing.TB, s *Server) netip.AddrPort {
	t.Helper()
	u, l := listen(t)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx, []net.PacketConn{u}, []net.Listener{l}) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	return u.LocalAddr().(*net.UDPAddr).AddrPort()
}

// listen opens one port for both protocols.
func listen(t testing.TB) (net.PacketConn, net.Listener) {
	t.Helper()
	for range 20 {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		u, err := net.ListenPacket("udp", l.Addr().String())
		if err == nil {
			return u, l
		}
		l.Close()
	}
	t.Fatal("no port free for both UDP and TCP")
	return nil, nil
}

func send(t testing.TB, network string, at netip.AddrPort, m *dns.Msg) *dns.Msg {
	t.Helper()
	c := &dns.Client{Net: network, Timeout: 10 * time.Second}
	r, _, err := c.Exchange(m, at.String())
	if err != nil {
		t.Fatalf("%s over %s: %v", m.Question[0].Name, network, err)
	}
	return r
}

func query1(name string, typ uint16) *dns.Msg { return new(dns.Msg).SetQuestion(name, typ) }

func TestSocketsAnswerAllNames(t *testing.T) {
	at := serve(t, newServer(t, Config{}, shop()...))
	for _, network := range []string{"udp", "tcp"} {
		for _, c := range names {
			if got := show(send(t, network, at, query1(c.name, c.typ))); got != c.want {
				t.Errorf("%s %s over %s:\n got %s\nwant %s", c.name, dns.TypeToString[c.typ], network, got, c.want)
			}
		}
	}
}

func TestIPv6Socket(t *testing.T) {
	u, err := net.ListenPacket("udp", "[::1]:0")
	if err != nil {
		t.Skipf("no IPv6 loopback: %v", err)
	}
	s := newServer(t, Config{}, shop()...)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx, []net.PacketConn{u}, nil) }()
	got := show(send(t, "udp", u.LocalAddr().(*net.UDPAddr).AddrPort(), query1("api.", dns.TypeA)))
	cancel()
	if err := <-done; err != nil || got != "NOERROR aa 100.96.0.1" {
		t.Errorf("got %s, Run: %v", got, err)
	}
}

func TestTruncationAndTCP(t *testing.T) {
	at := serve(t, newServer(t, Config{}, crowd("many", 60), crowd("huge", 1000)))
	sized := func(name string, size uint16) *dns.Msg {
		m := query1(name, dns.TypeA)
		if size > 0 {
			m.SetEdns0(size, false)
		}
		return m
	}
	for _, c := range []struct {
		test, network, name string
		size                uint16
		max                 int
		truncated           bool
		count               int // of records, if not truncated
	}{
		{"no EDNS", "udp", "many.", 0, 512, true, 0},
		{"EDNS too small", "udp", "many.", 600, 600, true, 0},
		{"EDNS below 512 is 512", "udp", "many.", 100, 512, true, 0},
		{"EDNS large enough", "udp", "many.", 1232, 1232, false, 60},
		{"EDNS larger than we send", "udp", "huge.", 65535, 1232, true, 0},
		{"TCP", "tcp", "huge.", 0, 65535, false, 1000},
	} {
		t.Run(c.test, func(t *testing.T) {
			m := send(t, c.network, at, sized(c.name, c.size))
			m.Compress = true
			if m.Truncated != c.truncated || m.Len() > c.max {
				t.Errorf("TC %v with %d bytes, want %v and at most %d", m.Truncated, m.Len(), c.truncated, c.max)
			}
			if !c.truncated && len(m.Answer) != c.count {
				t.Errorf("%d records, want %d", len(m.Answer), c.count)
			}
			if opt := m.IsEdns0(); (opt != nil) != (c.size > 0) {
				t.Errorf("OPT in the reply: %v", opt)
			}
		})
	}
}

func TestEDNSAndHeaders(t *testing.T) {
	s := newServer(t, Config{}, shop()...)
	edns := func(f func(*dns.OPT)) func(*dns.Msg) {
		return func(m *dns.Msg) {
			m.SetEdns0(1232, false)
			f(m.IsEdns0())
		}
	}
	for _, c := range []struct {
		name   string
		change func(*dns.Msg)
		want   string
	}{
		{"version 1", edns(func(o *dns.OPT) { o.SetVersion(1) }), "BADVERS"},
		{"option ignored", edns(func(o *dns.OPT) {
			o.Option = append(o.Option, &dns.EDNS0_COOKIE{Code: dns.EDNS0COOKIE, Cookie: "0102030405060708"})
		}), "NOERROR aa 100.96.0.1"},
		{"two OPT", func(m *dns.Msg) {
			m.SetEdns0(1232, false)
			m.Extra = append(m.Extra, m.Extra[0])
		}, "FORMERR"},
		{"class CHAOS", func(m *dns.Msg) { m.Question[0].Qclass = dns.ClassCHAOS }, "REFUSED"},
		{"class ANY", func(m *dns.Msg) { m.Question[0].Qclass = dns.ClassANY }, "REFUSED"},
		{"NOTIFY", func(m *dns.Msg) { m.Opcode = dns.OpcodeNotify }, "NOTIMP"},
		{"UPDATE", func(m *dns.Msg) { m.Opcode = dns.OpcodeUpdate }, "NOTIMP"},
		{"no question", func(m *dns.Msg) { m.Question = nil }, "FORMERR"},
		{"two questions", func(m *dns.Msg) { m.Question = append(m.Question, m.Question[0]) }, "FORMERR"},
		{"an answer in the query", func(m *dns.Msg) {
			m.Answer = []dns.RR{&dns.TXT{Hdr: header("x.", dns.TypeTXT), Txt: []string{"x"}}}
		}, "FORMERR"},
		{"type OPT", func(m *dns.Msg) { m.Question[0].Qtype = dns.TypeOPT }, "FORMERR"},
		{"no recursion desired", func(m *dns.Msg) {
			m.RecursionDesired = false
			m.Question[0].Name = "example.com."
		}, "REFUSED"},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := exchange(t, s, ask(t, "api.", dns.TypeA, c.change), true)
			if got := show(m); got != c.want {
				t.Errorf("got %s, want %s", got, c.want)
			}
		})
	}
	for name, req := range map[string][]byte{
		"empty": nil, "short": make([]byte, 11), "a response": ask(t, "api.", dns.TypeA, func(m *dns.Msg) { m.Response = true }),
	} {
		if got := s.answer(t.Context(), req, true); got != nil {
			t.Errorf("%s was answered: % x", name, got)
		}
	}
	torn := ask(t, "api.", dns.TypeA)
	m := exchange(t, s, torn[:len(torn)-3], true)
	if m.Rcode != dns.RcodeFormatError || m.Id != binary.BigEndian.Uint16(torn) {
		t.Errorf("torn query: %v", m)
	}
}

// TestPipelining: many queries in one go on one connection, a slow one first,
// which must not hold the others up (RFC 7766, section 6.2.1.1).
func TestPipelining(t *testing.T) {
	release := make(chan struct{})
	s := newServer(t, Config{Resolve: func(ctx context.Context, h *namepb.Host) bool {
		if h.Name == "only4" {
			<-release
		}
		return true
	}}, shop()...)
	c, err := net.Dial("tcp", serve(t, s).String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	var all []byte
	for id, name := range []string{"only4.", "api.", "db.", "nope.cluster.local."} {
		req := ask(t, name, dns.TypeA, func(m *dns.Msg) { m.Id = uint16(id) })
		all = append(binary.BigEndian.AppendUint16(all, uint16(len(req))), req...)
	}
	if _, err := c.Write(all); err != nil {
		t.Fatal(err)
	}
	conn := &dns.Conn{Conn: c}
	seen := make(map[uint16]bool)
	for range 3 {
		m, err := conn.ReadMsg()
		if err != nil {
			t.Fatal(err)
		}
		seen[m.Id] = true
	}
	if seen[0] || len(seen) != 3 {
		t.Fatalf("answered %v while query 0 waited", seen)
	}
	// The client ends its side: what is pending must still come.
	c.(*net.TCPConn).CloseWrite()
	close(release)
	if m, err := conn.ReadMsg(); err != nil || m.Id != 0 {
		t.Fatalf("the slow answer: %v, %v", m, err)
	}
	if _, err := conn.ReadMsg(); !errors.Is(err, io.EOF) {
		t.Errorf("after the last answer: %v, want EOF", err)
	}
}

func TestOversizedTCPQueryClosesOnlyItsConnection(t *testing.T) {
	at := serve(t, newServer(t, Config{}, shop()...))
	c, err := net.Dial("tcp", at.String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.Write([]byte{0xff, 0xff, 0})
	if _, err := c.Read(make([]byte, 1)); err == nil {
		t.Error("connection lives on after a query of 64 KiB was announced")
	}
	if got := show(send(t, "tcp", at, query1("api.", dns.TypeA))); got != "NOERROR aa 100.96.0.1" {
		t.Errorf("another connection: %s", got)
	}
}

func TestRunTellsOfBrokenSocket(t *testing.T) {
	u, l := listen(t)
	u.Close()
	err := newServer(t, Config{}).Run(t.Context(), []net.PacketConn{u}, []net.Listener{l})
	if !errors.Is(err, net.ErrClosed) {
		t.Errorf("Run: %v, want net.ErrClosed", err)
	}
}

// FuzzMessage: any bytes get a well-formed reply to the same query or none.
func FuzzMessage(f *testing.F) {
	s := newServer(f, Config{}, shop()...)
	for _, c := range names {
		f.Add(ask(f, c.name, c.typ), true)
	}
	f.Add(ask(f, "api.", dns.TypeA, func(m *dns.Msg) { m.SetEdns0(1, true) }), false)
	f.Add([]byte{0, 1, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0xc0, 12, 0, 1, 0, 1}, true)
	f.Fuzz(func(t *testing.T, req []byte, udp bool) {
		for _, reply := range [][]byte{s.answer(t.Context(), req, udp), s.packed(nil, req, udp)} {
			if reply == nil {
				continue
			}
			m := new(dns.Msg)
			if err := m.Unpack(reply); err != nil {
				t.Fatalf("reply % x to % x: %v", reply, req, err)
			}
			if !m.Response || m.Id != binary.BigEndian.Uint16(req) || len(reply) > maxTCP || udp && len(reply) > maxUDP {
				t.Fatalf("reply % x to % x", reply, req)
			}
		}
	})
}

// BenchmarkUDP is the server's and the client's cost together, over loopback.
func BenchmarkUDP(b *testing.B) {
	at := serve(b, newServer(b, Config{}, services(10000)...))
	for _, q := range []struct {
		name string
		req  []byte
	}{
		{"packed", ask(b, "svc-77.ns-77.svc.cluster.local.", dns.TypeA)},
		{"whole", ask(b, "_http._tcp.svc-77.ns-77.svc.cluster.local.", dns.TypeSRV)},
	} {
		b.Run(q.name, func(b *testing.B) {
			c, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(at))
			if err != nil {
				b.Fatal(err)
			}
			defer c.Close()
			buf := make([]byte, 4096)
			const window = 64
			for n := 0; b.Loop(); n++ {
				c.Write(q.req)
				if n >= window {
					c.Read(buf)
				}
			}
		})
	}
}
