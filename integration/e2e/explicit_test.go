package e2e

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/heddle-mesh/heddle/proxy/capture"
)

// uncaptured is the shop for machines where nothing can be captured: programs listen where
// they are told and call the addresses of their own proxies.
const uncaptured = `
services:
  web:
    ports: [8080]
    uses: ["api:80", "db:3306"]
    command: [APP, serve, --http, "127.0.0.1:${PORT_8080}"]
  api-v1: &api
    service: api
    labels: {app: api, version: v1}
    ports: [8080]
    ready: /healthz
    uses: ["db:3306"]
    command: [APP, serve, --http, "127.0.0.1:${PORT_8080}", --version, v1]
  api-v2:
    <<: *api
    labels: {app: api, version: v2}
    command: [APP, serve, --http, "127.0.0.1:${PORT_8080}", --version, v2]
  db:
    ports: [3306]
    uses: ["api:80"]
    command: [APP, serve, --banner, "127.0.0.1:${PORT_3306}"]
`

// TestExplicit has a mesh without capture, as root and as a plain user.
func TestExplicit(t *testing.T) {
	needMesh(t)
	modes := []string{explicit}
	if capture.MachineRoot() {
		modes = append(modes, explicitPlain)
	}
	for _, mode := range modes {
		t.Run(mode, func(t *testing.T) {
			p := start(t, mode, uncaptured, shopObjects())
			api, db := "http://"+p.upstream("web-0", "api", 80), p.upstream("web-0", "db", 3306)
			r := decode(t, p.AwaitCode("web-0", api+"/hello", 200))
			if certs := r.Headers["X-Forwarded-Client-Cert"]; len(certs) != 1 || !strings.Contains(certs[0], "URI="+webID) {
				t.Errorf("the server was told of the caller: %q", certs)
			}
			if a := p.MustAsk("web-0", "tcp", db); a.Body != greeting {
				t.Errorf("a server that speaks first: %+v", a)
			}
			p.bothEnds(r.Workload)

			p.WriteObject("split.yaml", split(50, 50))
			await(t, 10*time.Second, "both versions answer", func() error {
				s := p.Load("web-0", api+"/", 500, "--count", "100").Wait()
				// One of two fair shares of 100 is less than 25 once in 3 million times.
				if s.Failed > 0 || s.Versions["v1"] < 25 || s.Versions["v2"] < 25 {
					return fmt.Errorf("%+v", s)
				}
				return nil
			})
			p.WriteObject("split.yaml", split(0, 100))
			await(t, 10*time.Second, "only v2 answers", func() error {
				if s := p.Load("web-0", api+"/", 500, "--count", "100").Wait(); s.Versions["v2"] != 100 {
					return fmt.Errorf("%+v", s)
				}
				return nil
			})

			p.WriteObject("policies.yaml", allow("db", "api")+allow("api", "db"))
			p.AwaitCode("web-0", api+"/", 403)
			await(t, 10*time.Second, "web is cut off from db", func() error {
				a, err := p.Ask("web-0", "tcp", db)
				if err == nil && (a.Body != "" || a.Error == "") {
					err = fmt.Errorf("%+v", a)
				}
				return err
			})
			if a := p.MustAsk("api-v1-0", "tcp", p.upstream("api-v1-0", "db", 3306)); a.Body != greeting {
				t.Errorf("whom the policy allows, over TCP: %+v", a)
			}
			decode(t, p.MustAsk("db-0", "get", "http://"+p.upstream("db-0", "api", 80)+"/"))
		})
	}
}

// registration is what a workload has registered.
type registration struct {
	Spec struct {
		Addresses []string
		Ports     []struct{ App, Peer, Local uint16 }
		Upstreams []struct {
			Service string
			Port    uint16
			Local   string
		}
	}
}

func (p *project) registration(workload string) registration {
	p.t.Helper()
	text, err := p.Heddle("get", "workload", workload, "-o", "json")
	if err != nil {
		p.t.Fatal(err)
	}
	var r registration
	if err := json.Unmarshal([]byte(text), &r); err != nil {
		p.t.Fatalf("%s: %v", text, err)
	}
	return r
}

// upstream is the address at which a program without capture calls a service.
func (p *project) upstream(workload, service string, port uint16) string {
	p.t.Helper()
	r := p.registration(workload)
	for _, u := range r.Spec.Upstreams {
		if u.Service == service && u.Port == port {
			return u.Local
		}
	}
	p.t.Fatalf("%s has no upstream %s:%d: %+v", workload, service, port, r)
	return ""
}

// bothEnds looks at the port that a workload's peers see: its identity is in the TLS
// session, and plaintext gets no answer.
func (p *project) bothEnds(workload string) {
	p.t.Helper()
	r := p.registration(workload)
	i := slices.IndexFunc(r.Spec.Addresses, func(a string) bool { return !strings.Contains(a, ":") })
	address := netip.AddrPortFrom(netip.MustParseAddr(r.Spec.Addresses[max(i, 0)]), r.Spec.Ports[0].Peer).String()
	if a := p.MustAsk("web-0", "tls", p.RunDir("web-0")+"/app/workload.sock", address); a.Body != apiID {
		p.t.Errorf("the peer at %s is %+v, not %s", address, a, apiID)
	}
	if a := p.MustAsk("web-0", "raw", address); a.Body != "" || a.Error != "reset" && a.Error != "end" {
		p.t.Errorf("plaintext to %s: %+v", address, a)
	}
}
