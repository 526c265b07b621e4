package dns

import (
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/miekg/dns"

	"github.com/heddle-mesh/heddle/discovery/dns/namepb"
)

// canonical makes replies comparable: records sorted, for both roads rotate
// them, and the checksum-free rest as it is.
func canonical(t testing.TB, wire []byte) string {
	t.Helper()
	m := new(dns.Msg)
	if err := m.Unpack(wire); err != nil {
		t.Fatalf("reply % x: %v", wire, err)
	}
	lines := strings.Split(m.String(), "\n")
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

// sameAnswer checks that the packed road, where it answers, says what the whole
// road says. It reports whether it did answer.
func sameAnswer(t testing.TB, s *Server, req []byte, udp bool) bool {
	t.Helper()
	fast := s.packed(nil, req, udp)
	if fast == nil {
		return false
	}
	full := s.answer(context.Background(), req, udp)
	if full == nil {
		t.Fatalf("packed road answered % x, whole road did not", req)
	}
	if diff := cmp.Diff(canonical(t, full), canonical(t, fast)); diff != "" {
		t.Fatalf("query % x: whole(-) and packed(+) differ:\n%s", req, diff)
	}
	return true
}

func TestPackedEqualsWhole(t *testing.T) {
	s := newServer(t, Config{}, append(shop(), crowd("many", 60))...)
	types := []uint16{dns.TypeA, dns.TypeAAAA, dns.TypeSRV, dns.TypePTR, dns.TypeTXT, dns.TypeSOA, dns.TypeHTTPS,
		dns.TypeCNAME, dns.TypeANY, dns.TypeAXFR, dns.TypeOPT, 0, 65280}
	all := []string{"many.default.svc.cluster.local.", ".", "com.", strings.Repeat("a.", 120) + "cluster.local."}
	for _, c := range names {
		all = append(all, c.name)
	}
	r := rand.New(rand.NewPCG(1, 2))
	answered := 0
	const rounds = 20000
	for range rounds {
		name := mixCase(r, all[r.IntN(len(all))])
		req := ask(t, name, types[r.IntN(len(types))], func(m *dns.Msg) {
			m.Id, m.RecursionDesired = uint16(r.Uint32()), r.IntN(4) > 0
			m.AuthenticatedData, m.CheckingDisabled = r.IntN(3) == 0, r.IntN(3) == 0
			if r.IntN(2) == 0 {
				m.SetEdns0(uint16(r.IntN(5000)), r.IntN(2) == 0)
			}
		})
		if sameAnswer(t, s, req, r.IntN(2) == 0) {
			answered++
		}
	}
	if answered < rounds/2 {
		t.Errorf("packed road answered %d of %d: too few to prove anything", answered, rounds)
	}
}

// FuzzPacked: the same for any bytes.
func FuzzPacked(f *testing.F) {
	s := newServer(f, Config{}, shop()...)
	for _, c := range names {
		f.Add(ask(f, c.name, c.typ), true)
		f.Add(ask(f, c.name, c.typ, func(m *dns.Msg) { m.SetEdns0(1232, true) }), false)
	}
	f.Fuzz(func(t *testing.T, req []byte, udp bool) { sameAnswer(t, s, req, udp) })
}

func mixCase(r *rand.Rand, s string) string {
	b := []byte(s)
	for i, c := range b {
		if c >= 'a' && c <= 'z' && r.IntN(3) == 0 {
			b[i] -= 'a' - 'A'
		}
	}
	return string(b)
}

// crowd is a headless service of n endpoints.
func crowd(name string, n int) *namepb.Host {
	h := &namepb.Host{Name: name, Namespace: "default", Headless: true, Ports: []*namepb.Port{{Name: "http", Number: 80}}}
	for i := range n {
		addr := netip.AddrFrom4([4]byte{10, 68, byte(1 + i/250), byte(1 + i%250)})
		h.Endpoints = append(h.Endpoints, &namepb.Endpoint{
			Hostname: fmt.Sprintf("p-%d", i), Addresses: [][]byte{addr.AsSlice()}, Ready: true,
		})
	}
	return h
}

// TestRotation: clients that take the first address must meet all.
func TestRotation(t *testing.T) {
	s := newServer(t, Config{}, shop()...)
	for _, road := range []struct {
		name   string
		answer func(req []byte) []byte
	}{
		{"packed", func(req []byte) []byte { return s.packed(nil, req, true) }},
		{"whole", func(req []byte) []byte { return s.answer(context.Background(), req, true) }},
	} {
		first := make(map[string]int)
		for range 10 {
			m := new(dns.Msg)
			if err := m.Unpack(road.answer(ask(t, "db.", dns.TypeA))); err != nil {
				t.Fatal(err)
			}
			first[m.Answer[0].(*dns.A).A.String()]++
		}
		if first["10.68.0.3"] != 5 || first["10.68.0.4"] != 5 {
			t.Errorf("%s road: first addresses %v, want each 5 times", road.name, first)
		}
	}
}

// services is n services as a mesh has them.
func services(n int) []*namepb.Host {
	hosts := make([]*namepb.Host, n)
	for i := range hosts {
		v4, v6 := []byte{100, 96, 0, 0}, ip("fd68:6564:646c:2::")
		binary.BigEndian.PutUint16(v4[2:], uint16(i+1))
		binary.BigEndian.PutUint16(v6[14:], uint16(i+1))
		hosts[i] = &namepb.Host{
			Name: fmt.Sprintf("svc-%d", i), Namespace: fmt.Sprintf("ns-%d", i%100),
			VirtualIps: [][]byte{v4, v6}, Ports: []*namepb.Port{{Name: "http", Number: 80}},
		}
	}
	return hosts
}

func BenchmarkAnswer(b *testing.B) {
	s := newServer(b, Config{}, services(10000)...)
	for _, q := range []struct {
		name string
		req  []byte
	}{
		{"A", ask(b, "svc-77.ns-77.svc.cluster.local.", dns.TypeA)},
		{"A-edns", ask(b, "svc-77.ns-77.svc.cluster.local.", dns.TypeA, func(m *dns.Msg) { m.SetEdns0(1232, false) })},
		{"nxdomain", ask(b, "example.com.default.svc.cluster.local.", dns.TypeA)},
	} {
		b.Run(q.name+"/packed", func(b *testing.B) {
			buf := make([]byte, 0, maxUDP)
			for b.Loop() {
				if s.packed(buf, q.req, true) == nil {
					b.Fatal("declined")
				}
			}
		})
		b.Run(q.name+"/whole", func(b *testing.B) {
			for b.Loop() {
				s.answer(b.Context(), q.req, true)
			}
		})
	}
}

func BenchmarkTable(b *testing.B) {
	hosts := services(10000)
	zone, _ := NewZone("", "default")
	b.Run("new-10000", func(b *testing.B) {
		for b.Loop() {
			NewTable(zone, hosts)
		}
	})
	table, err := NewTable(zone, hosts)
	if err != nil {
		b.Fatal(err)
	}
	b.Run("update-1-of-10000", func(b *testing.B) {
		for b.Loop() {
			table.Update(hosts[:1], nil)
		}
	})
}
