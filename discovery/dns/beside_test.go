package dns

import (
	"testing"

	"github.com/miekg/dns"
)

// TestBesideAnotherServer: in a pod only whole names of services that the mesh knows are
// answered from its table; the cluster's server is asked for all else, and gives its own
// answers to it. Until there is a table it is asked for everything.
func TestBesideAnotherServer(t *testing.T) {
	cluster := startWorld(t)
	zone, err := NewZone("", "default")
	if err != nil {
		t.Fatal(err)
	}
	config := upstreams(cluster)
	config.Zone = zone.Beside()
	const elsewhere = "NOERROR ns: SOA example.com."
	asked := []struct {
		name string
		typ  uint16
		want string
	}{
		{"api.default.svc.cluster.local.", dns.TypeA, "NOERROR aa 100.96.0.1"},
		{"API.default.svc.cluster.local.", dns.TypeAAAA, "NOERROR aa fd68:6564:646c:2::1"},
		{"only4.default.svc.cluster.local.", dns.TypeAAAA, "NOERROR aa ns: SOA cluster.local."},
		{"db-0.db.default.svc.cluster.local.", dns.TypeA, "NOERROR aa 10.68.0.3"},
		{"_pg._tcp.db.default.svc.cluster.local.", dns.TypeA, "NOERROR aa ns: SOA cluster.local."},
		{"alias4.default.svc.cluster.local.", dns.TypeA, "NOERROR aa 100.96.0.2, CNAME only4.default.svc.cluster.local."},

		{"other.default.svc.cluster.local.", dns.TypeA, elsewhere},
		{"db-7.db.default.svc.cluster.local.", dns.TypeA, elsewhere},
		{"_ntp._udp.api.default.svc.cluster.local.", dns.TypeSRV, elsewhere},
		{"nobody.default.svc.cluster.local.", dns.TypeA, "NXDOMAIN ns: SOA example.com."},
		{"10-68-0-3.default.pod.cluster.local.", dns.TypeA, elsewhere},
		{"cluster.local.", dns.TypeSOA, elsewhere},
		{"default.svc.cluster.local.", dns.TypeA, elsewhere},
		{"dangling.default.svc.cluster.local.", dns.TypeA, "NOERROR aa CNAME gone.default.svc.cluster.local. ns: SOA example.com."},
		{"api.", dns.TypeA, elsewhere},
		{"api.default.", dns.TypeA, elsewhere},
		{"api.default.svc.", dns.TypeA, elsewhere},
		{"1.0.96.100.in-addr.arpa.", dns.TypePTR, elsewhere},
		{"www.example.com.default.svc.cluster.local.", dns.TypeA, elsewhere},
		{"www.example.com.", dns.TypeA, "NOERROR 192.0.2.1, CNAME web.example.com."},
	}
	at := serve(t, newServer(t, config, shop()...))
	for _, c := range asked {
		if got := show(send(t, "udp", at, query1(c.name, c.typ))); got != c.want {
			t.Errorf("%s %s: %s, want %s", c.name, dns.TypeToString[c.typ], got, c.want)
		}
	}
	at = serve(t, newServer(t, config))
	if got := show(send(t, "udp", at, query1("api.default.svc.cluster.local.", dns.TypeA))); got != elsewhere {
		t.Errorf("without a table: %s, want %s", got, elsewhere)
	}
}
