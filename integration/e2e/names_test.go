package e2e

import (
	"fmt"
	"strings"
	"time"
)

const greeting = "220 db-0\nthanks\n" // of the server that speaks first, and its echo

// serverFirst: no filter waits for the client's first bytes, which such a client sends
// only when it was greeted.
func serverFirst(p *project) {
	if a := p.MustAsk("web-0", "tcp", "db:3306"); a.Body != greeting {
		p.t.Errorf("%+v", a)
	}
	dump, err := p.Admin("web-0", "/config_dump?resource=dynamic_listeners")
	if err != nil || !strings.Contains(dump, "envoy.filters.listener.original_dst") || strings.Contains(dump, "http_inspector") {
		p.t.Errorf("listeners wait for the client: %v, %d bytes", err, len(dump))
	}
}

// ipv6: a service's address of IPv6 works as that of IPv4.
func ipv6(p *project) {
	for _, host := range []string{"api", "db"} {
		for _, name := range []string{host, host + ".default", host + ".default.svc.cluster.local"} {
			a := p.MustAsk("web-0", "resolve", "ip6", name)
			if a.Error != "" || !strings.HasPrefix(a.Body, "fd68:6564:646c:2:") {
				p.t.Fatalf("%s has the addresses %+v", name, a)
			}
			url := "http://[" + a.Body + "]/"
			if host == "api" {
				decode(p.t, p.MustAsk("web-0", "get", url))
			} else if a := p.MustAsk("web-0", "tcp", "["+a.Body+"]:3306"); a.Body != greeting {
				p.t.Errorf("%s: %+v", name, a)
			}
		}
	}
	if a := p.MustAsk("web-0", "resolve", "ip6", "nobody.default.svc.cluster.local"); !strings.Contains(a.Error, "no such host") {
		p.t.Errorf("a service that there is not: %+v", a)
	}
}

// headless: an instance of a service without a virtual address has a name, and is reached
// through both proxies.
func headless(p *project) {
	a := p.MustAsk("web-0", "resolve", "ip4", "db-0.db-each")
	if want := p.Address("db-0", false); a.Body != want {
		p.t.Fatalf("db-0.db-each is %+v, not %s", a, want)
	}
	if a := p.MustAsk("web-0", "tcp", "db-0.db-each:3306"); a.Body != greeting {
		p.t.Errorf("%+v", a)
	}
	const id = "spiffe://mesh.local/ns/default/sa/web"
	await(p.t, 5*time.Second, "db-0 logs who called", func() error {
		for _, line := range p.AccessLog("db-0") {
			if line["source_id"] == id {
				return nil
			}
		}
		return fmt.Errorf("%v", p.AccessLog("db-0"))
	})
}
