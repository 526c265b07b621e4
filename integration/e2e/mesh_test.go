package e2e

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestMesh looks at one mesh that runs undisturbed.
func TestMesh(t *testing.T) {
	inModes(t, func(t *testing.T, mode string) {
		p := start(t, mode, "metrics: 127.0.0.1:15020\n"+shop, shopObjects())
		for _, test := range []struct {
			name string
			run  func(*project)
		}{
			{"identities", identities},
			{"plaintext is refused", plaintext},
			{"policies", policies},
			{"metrics", metrics},
			{"held connections", heldConnections},
			{"split", splits},
			{"server speaks first", serverFirst},
			{"IPv6", ipv6},
			{"one instance by name", headless},
			{"malformed file", malformed},
			{"route to nowhere", routeToNowhere},
			{"refused by Envoy", refusedByEnvoy},
			{"restart", restarts},
			{"strangers get no configuration", strangers},
		} {
			t.Run(test.name, func(t *testing.T) {
				p := *p
				p.t = t
				test.run(&p)
			})
		}
	})
}

const (
	webID = "spiffe://mesh.local/ns/default/sa/web"
	apiID = "spiffe://mesh.local/ns/default/sa/api"
)

// identities: both ends of a call by name know each other by what TLS proved.
func identities(p *project) {
	r := decode(p.t, p.MustAsk("web-0", "get", "http://api/hello"))
	if r.Workload != "api-v1-0" && r.Workload != "api-v2-0" || r.Host != "api" {
		p.t.Errorf("the server says %+v", r)
	}
	if certs := r.Headers["X-Forwarded-Client-Cert"]; len(certs) != 1 || !strings.Contains(certs[0], "URI="+webID) {
		p.t.Errorf("the server was told of the caller: %q", certs)
	}
	logged := func(workload, field, want string) {
		await(p.t, 5*time.Second, workload+"'s access log has "+field+" "+want, func() error {
			for _, line := range p.AccessLog(workload) {
				if line["path"] == "/hello" && line[field] == want {
					return nil
				}
			}
			return fmt.Errorf("%v", p.AccessLog(workload))
		})
	}
	logged("web-0", "upstream_id", apiID)
	logged(r.Workload, "source_id", webID)

	address := p.Address(r.Workload, false) + ":8080"
	if a, err := told(p.Outside("tls", p.RunDir("web-0")+"/app/workload.sock", address)); a.Body != apiID {
		p.t.Errorf("the peer at %s is %+v %v, not %s", address, a, err, apiID)
	}
}

// plaintext: a connection without TLS is cut, and counted.
func plaintext(p *project) {
	const counter = "envoy_listener_ssl_connection_error"
	before := p.metric("api-v1-0", counter)
	for _, v6 := range []bool{false, true} {
		address := p.Address("api-v1-0", v6)
		if v6 {
			address = "[" + address + "]"
		}
		a, err := told(p.Outside("raw", address+":8080"))
		if err != nil || a.Body != "" || a.Error != "reset" && a.Error != "end" {
			p.t.Errorf("plaintext to %s: %+v %v", address, a, err)
		}
	}
	if after := p.metric("api-v1-0", counter); after < before+2 {
		p.t.Errorf("%s was %v and is %v", counter, before, after)
	}
}

// metric reads the sum of a metric of a workload, 0 where there is none.
func (p *project) metric(workload, name string) float64 {
	p.t.Helper()
	a := p.MustAsk(workload, "get", "http://127.0.0.1:15090/metrics")
	if a.Code != 200 {
		p.t.Fatalf("metrics of %s: %+v", workload, a)
	}
	var sum float64
	for line := range strings.Lines(a.Body) {
		series, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		if base, _, _ := strings.Cut(series, "{"); base == name {
			var v float64
			if _, err := fmt.Sscan(value, &v); err != nil {
				p.t.Fatalf("%s: %v", line, err)
			}
			sum += v
		}
	}
	return sum
}

// policies: a TCP service cuts off, an HTTP service answers 403 to, whom it does not allow.
func policies(p *project) {
	if a := p.MustAsk("web-0", "tcp", "db:3306"); a.Body != greeting {
		p.t.Errorf("without a policy: %+v", a)
	}
	p.Temporarily("policies.yaml", allow("db", "api")+allow("api", "db"))
	p.AwaitCode("web-0", "http://api/", 403)
	await(p.t, 10*time.Second, "web is cut off", func() error {
		a, err := p.Ask("web-0", "tcp", "db:3306")
		if err == nil && (a.Body != "" || !slices.Contains([]string{"reset", "end"}, a.Error)) {
			err = fmt.Errorf("%+v", a)
		}
		return err
	})
	if a := p.MustAsk("api-v1-0", "tcp", "db:3306"); a.Body != greeting {
		p.t.Errorf("whom the policy allows: %+v", a)
	}
	decode(p.t, p.MustAsk("db-0", "get", "http://api/"))
	p.RemoveObject("policies.yaml")
	// Every instance, and every connection from before, forgets it at a time of its own;
	// the tests to come must meet none that has not.
	await(p.t, 20*time.Second, "the policies are gone everywhere", func() error {
		for range 30 {
			if a, err := p.Ask("web-0", "get", "http://api/"); err != nil || a.Code != 200 {
				return fmt.Errorf("%+v, %v", a, err)
			}
		}
		a, err := p.Ask("web-0", "tcp", "db:3306")
		if err == nil && a.Body != greeting {
			err = fmt.Errorf("%+v", a)
		}
		return err
	})
}

// splits: requests are shared out by weight, on every proxy, and by new weights soon
// after these change. Envoy draws for each request by itself, so the number of those that
// reach v2 is binomial; one run in 1.7 million is farther than five sigma from its mean.
func splits(p *project) {
	clients := []string{"web-0", "db-0"}
	for _, v2 := range []int{10, 50} {
		p.Temporarily("split.yaml", split(100-v2, v2))
		for _, c := range clients {
			p.awaitSplit(c, v2)
		}
		const n = 2000
		var loads []*load
		for _, c := range clients {
			loads = append(loads, p.Load(c, "http://api/", 500, "--count", fmt.Sprint(n/len(clients))))
		}
		got := 0
		for _, l := range loads {
			s := l.Wait()
			if s.Failed > 0 {
				p.t.Errorf("of the load from %s %d failed: %v", l.name, s.Failed, s.Failures)
			}
			got += s.Versions["v2"]
		}
		share := float64(v2) / 100
		sigma := math.Sqrt(n * share * (1 - share))
		if off := math.Abs(float64(got)-n*share) / sigma; off > 5 {
			p.t.Errorf("%d of %d requests reached v2, %.1f sigma from %d%%", got, n, off, v2)
		}
	}
}

// awaitSplit waits until a client's proxy has a share of v2 in force.
func (p *project) awaitSplit(workload string, v2 int) {
	p.t.Helper()
	await(p.t, 10*time.Second, fmt.Sprintf("%s sends %d%% to v2", workload, v2), func() error {
		dump, err := p.Admin(workload, "/config_dump?resource=dynamic_route_configs")
		if err == nil && !strings.Contains(strings.ReplaceAll(dump, " ", ""), fmt.Sprintf(`"weight":%d`, v2)) {
			err = fmt.Errorf("no weight of %d in %.500s", v2, dump)
		}
		return err
	})
}

// restarts: "heddle restart" gives a workload, or all of a service, new processes.
func restarts(p *project) {
	if _, err := p.Heddle("restart", "nobody"); err == nil || !strings.Contains(err.Error(), `no workload or service "nobody"; there are the workloads ["api-v1-0" "api-v2-0" "db-0" "web-0"]`) {
		p.t.Errorf("restart of what is not there: %v", err)
	}
	for _, name := range []string{"db", "web-0"} {
		was, err := p.Process(strings.TrimSuffix(name, "-0") + "-0/app")
		if err != nil {
			p.t.Fatal(err)
		}
		if out, err := p.Heddle("restart", name); err != nil || out != was.Workload+"\n" {
			p.t.Errorf("restart of %s: %q %v", name, out, err)
		}
		if is, err := p.Process(was.Name); err != nil || is.PID == was.PID || is.State != "ready" {
			p.t.Errorf("%s was %+v and is %+v, %v", name, was, is, err)
		}
	}
	if a := p.MustAsk("web-0", "tcp", "db:3306"); a.Body != greeting {
		p.t.Errorf("after restarts: %+v", a)
	}
}
