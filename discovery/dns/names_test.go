package dns

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/miekg/dns"

	"github.com/heddle-mesh/heddle/discovery/dns/namepb"
)

func ip(s string) []byte { return netip.MustParseAddr(s).AsSlice() }

// shop is a mesh with one service of every kind.
func shop() []*namepb.Host {
	http := &namepb.Port{Name: "http", Number: 80}
	return []*namepb.Host{
		{Name: "api", Namespace: "default", Ports: []*namepb.Port{http, {Name: "dns", Protocol: namepb.Protocol_PROTOCOL_UDP, Number: 53}, {Number: 99}},
			VirtualIps: [][]byte{ip("100.96.0.1"), ip("fd68:6564:646c:2::1")}},
		{Name: "only4", Namespace: "default", Ports: []*namepb.Port{http}, VirtualIps: [][]byte{ip("100.96.0.2")}},
		{Name: "only6", Namespace: "other", VirtualIps: [][]byte{ip("fd68:6564:646c:2::2")}},
		{Name: "db", Namespace: "default", Headless: true, Ports: []*namepb.Port{{Name: "pg", Number: 5432}},
			Endpoints: []*namepb.Endpoint{
				{Hostname: "db-0", Addresses: [][]byte{ip("10.68.0.3"), ip("fd68::3")}, Ready: true},
				{Addresses: [][]byte{ip("10.68.0.4")}, Ready: true, Ports: []*namepb.Port{{Name: "pg", Number: 6432}}},
				{Addresses: [][]byte{ip("fd68::5")}, Ready: true},
				{Hostname: "db-9", Addresses: [][]byte{ip("10.68.0.9")}},
			}},
		{Name: "cold", Namespace: "default", Headless: true,
			Endpoints: []*namepb.Endpoint{{Hostname: "x", Addresses: [][]byte{ip("10.68.0.7")}}}},
		{Name: "eager", Namespace: "default", Headless: true, PublishNotReady: true,
			Endpoints: []*namepb.Endpoint{{Hostname: "x", Addresses: [][]byte{ip("10.68.0.8")}}}},
		{Name: "alias", Namespace: "default", ExternalName: "api.default.svc.cluster.local"},
		{Name: "alias4", Namespace: "default", ExternalName: "only4.default.svc.cluster.local."},
		{Name: "dangling", Namespace: "default", ExternalName: "gone.default.svc.cluster.local"},
		{Name: "self", Namespace: "default", ExternalName: "self.default.svc.cluster.local"},
	}
}

func newServer(t testing.TB, c Config, hosts ...*namepb.Host) *Server {
	t.Helper()
	if c.Zone == nil {
		zone, err := NewZone("", "default", netip.MustParsePrefix("100.96.0.0/16"), netip.MustParsePrefix("fd68:6564:646c:2::/64"))
		if err != nil {
			t.Fatal(err)
		}
		c.Zone = zone
	}
	s, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	if hosts != nil {
		table, err := NewTable(c.Zone, hosts)
		if err != nil {
			t.Fatal(err)
		}
		s.SetTable(table)
	}
	return s
}

func ask(t testing.TB, name string, typ uint16, change ...func(*dns.Msg)) []byte {
	t.Helper()
	m := new(dns.Msg)
	m.SetQuestion(name, typ)
	for _, f := range change {
		f(m)
	}
	wire, err := m.Pack()
	if err != nil {
		t.Fatal(err)
	}
	return wire
}

// exchange asks by the packed road, else the whole one, as the sockets do.
func exchange(t testing.TB, s *Server, req []byte, udp bool) *dns.Msg {
	t.Helper()
	wire := s.packed(nil, req, udp)
	if wire == nil {
		wire = s.answer(context.Background(), req, udp)
	}
	m := new(dns.Msg)
	if err := m.Unpack(wire); err != nil {
		t.Fatalf("reply % x: %v", wire, err)
	}
	return m
}

// show tells a reply in one line: rcode, AA, and each section's data.
func show(m *dns.Msg) string {
	var b strings.Builder
	if m.Rcode == dns.RcodeBadVers { // shares its number with BADSIG
		b.WriteString("BADVERS")
	} else {
		b.WriteString(dns.RcodeToString[m.Rcode])
	}
	if m.Authoritative {
		b.WriteString(" aa")
	}
	for _, section := range []struct {
		name string
		rrs  []dns.RR
	}{{"", m.Answer}, {" ns:", m.Ns}, {" +", m.Extra}} {
		var data []string
		for _, rr := range section.rrs {
			h := rr.Header()
			text := strings.TrimPrefix(rr.String(), h.String())
			switch rr.(type) {
			case *dns.OPT:
				continue
			case *dns.SOA:
				text = "SOA " + h.Name
			case *dns.CNAME:
				text = "CNAME " + text
			}
			data = append(data, text)
		}
		slices.Sort(data)
		if len(data) > 0 {
			fmt.Fprintf(&b, "%s %s", section.name, strings.Join(data, ", "))
		}
	}
	return b.String()
}

const domain = "cluster.local."

// names is what the Kubernetes DNS specification and RFC 2308 say.
var names = []struct {
	name string
	typ  uint16
	want string
}{
	{"api.default.svc." + domain, dns.TypeA, "NOERROR aa 100.96.0.1"},
	{"api.default.svc." + domain, dns.TypeAAAA, "NOERROR aa fd68:6564:646c:2::1"},
	{"aPi.DEFAULT.svc.Cluster.LOCAL.", dns.TypeA, "NOERROR aa 100.96.0.1"},
	{"api.", dns.TypeA, "NOERROR aa 100.96.0.1"},
	{"api.default.", dns.TypeA, "NOERROR aa 100.96.0.1"},
	{"api.default.svc.", dns.TypeA, "NOERROR aa 100.96.0.1"},
	{"only6.other.", dns.TypeAAAA, "NOERROR aa fd68:6564:646c:2::2"},

	// One family only: NODATA, never NXDOMAIN, or musl gives up on both.
	{"only4.default.svc." + domain, dns.TypeAAAA, "NOERROR aa ns: SOA cluster.local."},
	{"only6.other.svc." + domain, dns.TypeA, "NOERROR aa ns: SOA cluster.local."},
	{"only4.", dns.TypeAAAA, "NOERROR aa ns: SOA only4."},
	{"api.default.svc." + domain, dns.TypeMX, "NOERROR aa ns: SOA cluster.local."},
	{"api.default.svc." + domain, dns.TypeHTTPS, "NOERROR aa ns: SOA cluster.local."},
	{"api.default.svc." + domain, dns.TypeSRV, "NOERROR aa ns: SOA cluster.local."},

	// What does not exist, and what exists only because of what is below it.
	{"nope.default.svc." + domain, dns.TypeA, "NXDOMAIN aa ns: SOA cluster.local."},
	{"api.nope.svc." + domain, dns.TypeA, "NXDOMAIN aa ns: SOA cluster.local."},
	{"x.api.default.svc." + domain, dns.TypeA, "NXDOMAIN aa ns: SOA cluster.local."},
	{"example.com.default.svc." + domain, dns.TypeA, "NXDOMAIN aa ns: SOA cluster.local."},
	{"pod." + domain, dns.TypeA, "NXDOMAIN aa ns: SOA cluster.local."},
	{"nope.svc." + domain, dns.TypeA, "NXDOMAIN aa ns: SOA cluster.local."},
	{"default.svc." + domain, dns.TypeA, "NOERROR aa ns: SOA cluster.local."},
	{"svc." + domain, dns.TypeA, "NOERROR aa ns: SOA cluster.local."},
	{domain, dns.TypeA, "NOERROR aa ns: SOA cluster.local."},
	{domain, dns.TypeSOA, "NOERROR aa SOA cluster.local."},
	{"_tcp.api.default.svc." + domain, dns.TypeA, "NOERROR aa ns: SOA cluster.local."},
	{"_sctp.api.default.svc." + domain, dns.TypeA, "NXDOMAIN aa ns: SOA cluster.local."},

	{"dns-version." + domain, dns.TypeTXT, `NOERROR aa "1.1.0"`},

	{"_http._tcp.api.default.svc." + domain, dns.TypeSRV,
		"NOERROR aa 0 100 80 api.default.svc.cluster.local. + 100.96.0.1, fd68:6564:646c:2::1"},
	{"_dns._udp.api.default.svc." + domain, dns.TypeSRV,
		"NOERROR aa 0 100 53 api.default.svc.cluster.local. + 100.96.0.1, fd68:6564:646c:2::1"},
	{"_http._tcp.api.", dns.TypeSRV,
		"NOERROR aa 0 100 80 api.default.svc.cluster.local. + 100.96.0.1, fd68:6564:646c:2::1"},
	{"_dns._tcp.api.default.svc." + domain, dns.TypeSRV, "NXDOMAIN aa ns: SOA cluster.local."},

	{"db.default.svc." + domain, dns.TypeA, "NOERROR aa 10.68.0.3, 10.68.0.4"},
	{"db.default.svc." + domain, dns.TypeAAAA, "NOERROR aa fd68::3, fd68::5"},
	{"db-0.db.default.svc." + domain, dns.TypeA, "NOERROR aa 10.68.0.3"},
	{"db-0.db.", dns.TypeA, "NOERROR aa 10.68.0.3"},
	{"db-0.db.default.", dns.TypeAAAA, "NOERROR aa fd68::3"},
	{"10-68-0-4.db.default.svc." + domain, dns.TypeA, "NOERROR aa 10.68.0.4"},
	{"10-68-0-4.db.default.svc." + domain, dns.TypeAAAA, "NOERROR aa ns: SOA cluster.local."},
	{"fd68--5.db.default.svc." + domain, dns.TypeAAAA, "NOERROR aa fd68::5"},
	{"db-9.db.default.svc." + domain, dns.TypeA, "NXDOMAIN aa ns: SOA cluster.local."},
	{"_pg._tcp.db.default.svc." + domain, dns.TypeSRV, "NOERROR aa 0 100 5432 db-0.db.default.svc.cluster.local., " +
		"0 100 5432 fd68--5.db.default.svc.cluster.local., 0 100 6432 10-68-0-4.db.default.svc.cluster.local. + 10.68.0.3, 10.68.0.4, fd68::3, fd68::5"},
	{"cold.default.svc." + domain, dns.TypeA, "NXDOMAIN aa ns: SOA cluster.local."},
	{"cold.", dns.TypeA, "NXDOMAIN aa ns: SOA ."},
	{"eager.default.svc." + domain, dns.TypeA, "NOERROR aa 10.68.0.8"},

	{"1.0.96.100.in-addr.arpa.", dns.TypePTR, "NOERROR aa api.default.svc.cluster.local."},
	{"1.0.96.100.in-addr.arpa.", dns.TypeA, "NOERROR aa ns: SOA 1.0.96.100.in-addr.arpa."},
	{"9.9.96.100.in-addr.arpa.", dns.TypePTR, "NXDOMAIN aa ns: SOA 9.96.100.in-addr.arpa."},
	{"3.0.68.10.in-addr.arpa.", dns.TypePTR, "NOERROR aa db-0.db.default.svc.cluster.local."},
	{"1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.2.0.0.0.c.6.4.6.4.6.5.6.8.6.D.F.IP6.arpa.", dns.TypePTR, "NOERROR aa api.default.svc.cluster.local."},

	{"alias.default.svc." + domain, dns.TypeA, "NOERROR aa 100.96.0.1, CNAME api.default.svc.cluster.local."},
	{"alias.", dns.TypeCNAME, "NOERROR aa CNAME api.default.svc.cluster.local."},
	{"alias4.", dns.TypeAAAA, "NOERROR aa CNAME only4.default.svc.cluster.local. ns: SOA cluster.local."},
	{"dangling.", dns.TypeA, "NXDOMAIN aa CNAME gone.default.svc.cluster.local. ns: SOA cluster.local."},
	{"self.", dns.TypeA, "SERVFAIL aa"},

	{"api.default.svc." + domain, dns.TypeANY, `NOERROR aa "RFC8482" ""`},
	{"nope.default.svc." + domain, dns.TypeANY, "NXDOMAIN aa ns: SOA cluster.local."},
	{"example.com.", dns.TypeANY, `NOERROR "RFC8482" ""`},
	{domain, dns.TypeAXFR, "REFUSED"},
	{domain, dns.TypeIXFR, "REFUSED"},
	{"localhost.", dns.TypeA, "NOERROR 127.0.0.1"},
	{"x.localhost.", dns.TypeAAAA, "NOERROR ::1"},
	{"localhost.", dns.TypeMX, "NOERROR"},
	{"a.invalid.", dns.TypeA, "NXDOMAIN"},
	{"example.com.", dns.TypeA, "SERVFAIL"}, // no upstream here
}

func TestNames(t *testing.T) {
	s := newServer(t, Config{}, shop()...)
	for _, c := range names {
		t.Run(c.name+" "+dns.TypeToString[c.typ], func(t *testing.T) {
			req := ask(t, c.name, c.typ)
			m := exchange(t, s, req, true)
			if got := show(m); got != c.want {
				t.Errorf("\n got %s\nwant %s", got, c.want)
			}
			if !m.Response || !m.RecursionDesired || !m.RecursionAvailable || m.Question[0].Name != c.name {
				t.Errorf("header or question of the reply: %v", m)
			}
			for _, rr := range slices.Concat(m.Answer, m.Ns) {
				if rr.Header().Ttl != TTL {
					t.Errorf("TTL of %v, want %d", rr, TTL)
				}
			}
			if len(m.Answer) > 0 && m.Answer[0].Header().Name != c.name {
				t.Errorf("owner %q is not the name as asked, %q", m.Answer[0].Header().Name, c.name)
			}
		})
	}
}

func TestUpdateEqualsRebuild(t *testing.T) {
	zone := newServer(t, Config{}).config.Zone
	hosts := shop()
	full, err := NewTable(zone, hosts)
	if err != nil {
		t.Fatal(err)
	}
	step, _ := NewTable(zone, nil)
	// Everything twice, with a stranger that comes and goes, one at a time.
	stranger := &namepb.Host{Name: "guest", Namespace: "guests", VirtualIps: [][]byte{ip("100.96.0.1")}}
	for _, h := range append(hosts, hosts...) {
		before := tell(step)
		next, err := step.Update([]*namepb.Host{h, stranger}, nil)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(before, tell(step)); diff != "" {
			t.Fatalf("Update changed the old table: %s", diff)
		}
		step, _ = next.Update(nil, []Key{{Namespace: "guests", Name: "guest"}, {Name: "never"}})
	}
	if diff := cmp.Diff(tell(full), tell(step)); diff != "" {
		t.Error(diff)
	}
	empty := step
	for _, h := range hosts {
		empty, _ = empty.Update(nil, []Key{{h.Namespace, h.Name}})
	}
	if len(empty.entries)+len(empty.namespaces)+len(empty.ptrs) != 0 {
		t.Errorf("left after all were removed: %v", tell(empty))
	}
}

// tell is a table in comparable words.
func tell(t *Table) map[string][]string {
	out := make(map[string][]string)
	for _, e := range t.entries {
		for _, n := range e.nodes {
			out[n.name] = nil
			for _, set := range n.sets {
				for _, rr := range set.rrs {
					out[n.name] = append(out[n.name], rr.String())
				}
			}
		}
	}
	for addr, targets := range t.ptrs {
		out[addr.String()] = targets
	}
	for ns, n := range t.namespaces {
		out[ns] = []string{fmt.Sprint(n)}
	}
	return out
}

func TestBadHostStopsOnlyItself(t *testing.T) {
	s := newServer(t, Config{}, shop()...)
	bad := &namepb.Host{Name: "api", Namespace: "default"}
	good := &namepb.Host{Name: "new", Namespace: "default", VirtualIps: [][]byte{ip("100.96.0.77")}}
	table, err := s.table.Load().Update([]*namepb.Host{bad, good}, nil)
	if err == nil || !strings.Contains(err.Error(), "default/api") {
		t.Errorf("error %v does not name default/api", err)
	}
	s.SetTable(table)
	for name, want := range map[string]string{"api.": "NOERROR aa 100.96.0.1", "new.": "NOERROR aa 100.96.0.77"} {
		if got := show(exchange(t, s, ask(t, name, dns.TypeA), true)); got != want {
			t.Errorf("%s: %s, want %s", name, got, want)
		}
	}
}

func TestBeforeTheFirstTable(t *testing.T) {
	s := newServer(t, Config{})
	for name, want := range map[string]string{
		"api.default.svc.cluster.local.": "SERVFAIL",
		"nope.cluster.local.":            "SERVFAIL",
		"api.":                           "SERVFAIL",
		"api.default.":                   "SERVFAIL",
		"api.default.svc.":               "SERVFAIL",
		"1.0.96.100.in-addr.arpa.":       "SERVFAIL",
		"localhost.":                     "NOERROR 127.0.0.1",
	} {
		typ := dns.TypeA
		if strings.HasSuffix(name, "arpa.") {
			typ = dns.TypePTR
		}
		if got := show(exchange(t, s, ask(t, name, typ), true)); got != want {
			t.Errorf("%s: %s, want %s", name, got, want)
		}
	}
}

func TestResolveHook(t *testing.T) {
	var asked []string
	ok := false
	s := newServer(t, Config{Resolve: func(_ context.Context, h *namepb.Host) bool {
		asked = append(asked, h.Name)
		return ok
	}}, shop()...)
	again := func() string { return show(exchange(t, s, ask(t, "api.", dns.TypeA), true)) }
	for range 2 { // refused twice, answered all the same
		if got := again(); got != "NOERROR aa 100.96.0.1" {
			t.Errorf("got %s", got)
		}
	}
	ok = true
	again()
	again() // known by now
	if len(asked) != 3 {
		t.Errorf("hook called for %v, want 3 times", asked)
	}
	table, _ := s.table.Load().Update(shop()[:1], nil)
	s.SetTable(table) // a new version of api
	again()
	if len(asked) != 4 {
		t.Errorf("hook called for %v, want once more after a change", asked)
	}
}
