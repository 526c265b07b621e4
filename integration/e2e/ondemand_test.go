package e2e

import (
	"encoding/json"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// idle is the number of services that nobody in TestOnDemand has a use for.
const idle = 50

// TestOnDemand has proxies that hold what their workloads use: an application's first
// question for a name brings the service, or its first connection to an address does. Either
// obeys the service's routes and policies from the first request on; what one instance has
// asked for the others have, too; and what does not exist is refused at once.
func TestOnDemand(t *testing.T) {
	t.Parallel()
	inModes(t, func(t *testing.T, mode string) {
		objects := shopObjects()
		for i := range idle {
			objects["services.yaml"] += service(fmt.Sprintf("idle-%d", i), "app: api", "{name: http, port: 80, targetPort: 8080}")
		}
		objects["services.yaml"] += service("closed", "app: web", "{name: http, port: 80, targetPort: 8080}")
		objects["policies.yaml"] = allow("closed", "nobody")
		objects["route.yaml"] = `
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: idle-1}
spec:
  parentRefs: [{group: "", kind: Service, name: idle-1}]
  rules: [{backendRefs: [{name: api-v2, port: 80}]}]
`
		p := start(t, mode, "onDemand: true\n"+strings.Replace(shop, "web:\n", "web:\n    replicas: 2\n", 1), objects)
		p.holds("web-0")

		if r := decode(t, p.MustAsk("web-0", "get", "http://api/")); r.Workload != "api-v1-0" && r.Workload != "api-v2-0" {
			t.Errorf("the first request to a name is answered by %+v", r)
		}
		if a := p.MustAsk("web-0", "tcp", "db:3306"); !strings.Contains(a.Body, "220 db-0") {
			t.Errorf("the first connection to a server that speaks first: %+v", a)
		}
		p.holds("web-0", "api", "db")
		p.holds("web-1", "api", "db")
		p.holds("db-0")

		// By address, with a route to another service and with a policy.
		for name, want := range map[string]string{"idle-0": "200", "idle-1": "200 v2", "closed": "403"} {
			a := p.MustAsk("web-0", "get", "http://"+p.virtual(name)+"/")
			got := fmt.Sprint(a.Code)
			if want == "200 v2" {
				got += " " + decode(t, a).Version
			}
			if got != want {
				t.Errorf("the first request to %s by its address: %s %+v, want %s", name, got, a, want)
			}
		}
		p.holds("web-1", "api", "db", "idle-0", "idle-1", "api-v2", "closed")

		if out, err := p.Heddle("config", "web-0"); err != nil || !strings.Contains(out, "idle-1.default:80") || strings.Contains(out, "idle-3.default") {
			t.Errorf("heddle config is to show what the proxy holds: %v: %s", err, out)
		}

		began := time.Now()
		if a, err := p.Ask("web-0", "tcp", net.JoinHostPort(p.unused(), "80")); err != nil || a.Error == "" {
			t.Errorf("an address of the mesh that nobody has: %+v, %v", a, err)
		} else if took := time.Since(began); took > 4*time.Second { // the proxy waits 5 for an answer
			t.Errorf("it is refused after %s: %+v", took, a)
		}

		// A service that comes later, and one that goes.
		p.WriteObject("late.yaml", service("late", "app: api", "{name: http, port: 80, targetPort: 8080}"))
		await(t, 10*time.Second, "a new service is reached", func() error {
			a, err := p.Ask("web-0", "get", "http://late/")
			if err == nil && a.Code != 200 {
				err = fmt.Errorf("%+v", a)
			}
			return err
		})
		p.RemoveObject("late.yaml")
		p.holds("web-0", "api", "db", "idle-0", "idle-1", "api-v2", "closed")

		// The control plane forgets, and the proxies do not.
		p.Kill("controlplane")
		load := p.Load("web-0", "http://api/", 50)
		await(t, 20*time.Second, "a proxy holds what it held when the control plane is back", func() error {
			a, err := p.Ask("web-0", "get", "http://idle-3/")
			if err == nil && a.Code != 200 {
				err = fmt.Errorf("%+v", a)
			}
			return err
		})
		p.holds("web-0", "api", "db", "idle-0", "idle-1", "api-v2", "closed", "idle-3")
		NoneFailed(load)

		// A replica that starts anew has what its account uses before it asks for anything.
		if out, err := p.Heddle("down"); err != nil {
			t.Fatalf("heddle down: %v: %s", err, out)
		}
		if err := os.RemoveAll(filepath.Join(p.state, "sidecars", "web-1")); err != nil {
			t.Fatal(err)
		}
		if out, err := p.Up(0, "--detach", "--wait", "--timeout", "60s").CombinedOutput(); err != nil {
			t.Fatalf("heddle up: %v: %s", err, out)
		}
		p.holds("web-1", "api", "db", "idle-0", "idle-1", "api-v2", "closed", "idle-3")
	})
}

// TestFirstUses has an application use each of 1,000 services for the first time, half of
// them by name, half by address. None fails. How long they take is reported.
func TestFirstUses(t *testing.T) {
	t.Parallel()
	inBestMode(t, func(t *testing.T, mode string) {
		const n = 1000
		var text strings.Builder
		for i := range n {
			text.WriteString(service(fmt.Sprintf("s%d", i), "app: api", "{name: http, port: 80, targetPort: 8080}"))
		}
		p := start(t, mode, "onDemand: true\n"+shop, map[string]string{"services.yaml": text.String()})
		p.holds("web-0")
		p.usage("web-0", "nothing")
		addresses := p.virtuals()
		var names, literals []string
		for i := range n {
			if name := fmt.Sprintf("s%d", i); i < n/2 {
				names = append(names, "http://"+name+"/")
			} else {
				literals = append(literals, "http://"+addresses[name]+"/")
			}
		}
		p.first("by name", names[:10])
		p.usage("web-0", "10 services")
		p.first("by name", names[10:])
		p.first("by address", literals)
		p.first("again", append(names, literals...))
		p.usage("web-0", fmt.Sprint(n, " services"))
	})
}

// first asks for URLs from web-0, each once.
func (p *project) first(how string, urls []string) {
	p.t.Helper()
	out, err := p.Exec("web-0", append([]string{"first"}, urls...)...)
	if err != nil {
		p.t.Fatalf("%v: %s", err, out)
	}
	var told struct {
		OK, Failed int
		Failures   []string
	}
	if err := json.Unmarshal([]byte(out), &told); err != nil {
		p.t.Fatalf("%.300s: %v", out, err)
	}
	p.t.Logf("%s: %s", how, strings.TrimSpace(out))
	if told.Failed > 0 || told.OK != len(urls) {
		p.t.Errorf("%s: %d of %d failed: %v", how, told.Failed, len(urls), told.Failures)
	}
}

// usage reports what a workload's Envoy holds of its own.
func (p *project) usage(workload, of string) {
	p.t.Helper()
	s, err := p.Status(workload)
	if err != nil {
		p.t.Fatal(err)
	}
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.Envoy.PID))
	if err != nil {
		p.t.Fatal(err)
	}
	for line := range strings.Lines(string(status)) {
		if strings.HasPrefix(line, "RssAnon") {
			p.t.Logf("Envoy with %s: %s", of, strings.Join(strings.Fields(line), " "))
		}
	}
}

// holds waits until a workload's Envoy has the clusters of these services and of no others.
func (p *project) holds(workload string, services ...string) {
	p.t.Helper()
	slices.Sort(services)
	await(p.t, 10*time.Second, fmt.Sprintf("%s holds %v", workload, services), func() error {
		text, err := p.Admin(workload, "/config_dump?resource=dynamic_active_clusters")
		if err != nil {
			return err
		}
		var dump struct {
			Configs []struct{ Cluster struct{ Name string } }
		}
		if err := json.Unmarshal([]byte(text), &dump); err != nil {
			return fmt.Errorf("%.300s: %w", text, err)
		}
		var got []string
		for _, c := range dump.Configs {
			if name, _, ok := strings.Cut(c.Cluster.Name, ".default:"); ok {
				got = append(got, name)
			}
		}
		slices.Sort(got)
		if !slices.Equal(got, services) {
			return fmt.Errorf("it has %v", got)
		}
		return nil
	})
}

// virtual is the virtual IPv4 address of a service.
func (p *project) virtual(service string) string {
	p.t.Helper()
	addr, ok := p.virtuals()[service]
	if !ok {
		p.t.Fatalf("%s has no virtual IPv4 address", service)
	}
	return addr
}

// virtuals are the virtual IPv4 addresses of services, by name.
func (p *project) virtuals() map[string]string {
	p.t.Helper()
	out, err := p.Heddle("get", "service", "-o", "json")
	if err != nil {
		p.t.Fatal(err)
	}
	var list struct {
		Items []struct {
			Metadata struct{ Name string }
			Status   struct{ VirtualIPs []string }
		}
	}
	if err := json.Unmarshal([]byte(out), &list); err != nil {
		p.t.Fatalf("%.300s: %v", out, err)
	}
	found := map[string]string{}
	for _, item := range list.Items {
		for _, text := range item.Status.VirtualIPs {
			if addr, err := netip.ParseAddr(text); err == nil && addr.Is4() {
				found[item.Metadata.Name] = text
			}
		}
	}
	return found
}

// unused is a virtual address that no service has.
func (p *project) unused() string {
	addr := netip.MustParseAddr(p.virtual("idle-0")).As4()
	addr[2] ^= 0x55
	return netip.AddrFrom4(addr).String()
}
