package bench

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	secretv3 "github.com/envoyproxy/go-control-plane/envoy/service/secret/v3"
	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	"google.golang.org/grpc"

	"github.com/heddle-mesh/heddle/controlplane"
	"github.com/heddle-mesh/heddle/controlplane/mesh"
	"github.com/heddle-mesh/heddle/controlplane/translate"
	"github.com/heddle-mesh/heddle/controlplane/xds"
	"github.com/heddle-mesh/heddle/controlplane/xds/xdstest"
	"github.com/heddle-mesh/heddle/identity/channel"
	"github.com/heddle-mesh/heddle/identity/sds"
	"github.com/heddle-mesh/heddle/identity/spiffeid"
	"github.com/heddle-mesh/heddle/install/parts/partstest"
	"github.com/heddle-mesh/heddle/proxy/bootstrap"
	"github.com/heddle-mesh/heddle/proxy/envoy"
)

// BenchmarkEnvoy is about one real Envoy. The hop is what the capture listener and the internal listener behind it cost: one
// Envoy has them and, for the same service, an explicit sidecar's listener that applies
// the routes itself. The service's virtual IP is the capture listener's own address, so
// that no address is translated on either road. The proxies' time is the caller's alone.
//
// The pushes are changes to the ACK of that Envoy, its agent's relay left out.
func BenchmarkEnvoy(b *testing.B) {
	captured := netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), translate.OutboundPort)
	explicit := netip.AddrPortFrom(captured.Addr(), freePort(b))
	p := newPlane(b, netip.PrefixFrom(captured.Addr(), 32))
	called, callee := hopMesh(b, captured)
	caller := workload(1, 0, true)
	if _, err := p.pipeline.Submit([]mesh.Change{mesh.Set(called), mesh.Set(callee), mesh.Set(caller), mesh.Set(hopRoute(called, 1))}); err != nil {
		b.Fatal(err)
	}
	p.open(b, caller, called, explicit)
	background(b, exec.Command(self(b), "serve", "--http", fmt.Sprintf("127.0.0.1:%d", callee.Ports[0].Local)))
	p.envoy(b, callee)
	pid, server := p.envoy(b, caller)
	for _, address := range []netip.AddrPort{captured, explicit} {
		xdstest.Eventually(b, "an answer by way of "+address.String(), func() bool {
			r, err := http.Get("http://" + address.String())
			if err == nil {
				r.Body.Close()
			}
			return err == nil && r.StatusCode == http.StatusOK
		})
	}
	for _, c := range []struct {
		name  string
		flags []string
	}{{"1000rps", []string{"--rate", "1000"}}, {"16conns", nil}} {
		b.Run("hop/"+c.name, func(b *testing.B) {
			load := func(to netip.AddrPort) func() (loadResult, float64) {
				args := append([]string{"load", "--to", to.String(), "--for", length}, c.flags...)
				return func() (loadResult, float64) { return runLoad(b, exec.Command(self(b), args...), []int{pid}) }
			}
			compare(b, c.flags != nil, [2]contender{{"explicit", load(explicit)}, {"captured", load(captured)}})
		})
	}
	p.measure(b, server, []string{caller.Name.String()}, []change{
		{"push-endpoint", func(i int) mesh.Object { return workload(0, 1, i%2 == 0) }},
		{"push-route", func(i int) mesh.Object { return hopRoute(called, uint32(2+i%2)) }},
	})
}

// hopMesh is a service at an address, and its one workload with an explicit sidecar.
func hopMesh(b *testing.B, at netip.AddrPort) (*mesh.Service, *mesh.Workload) {
	s := service(0)
	s.VirtualIPs, s.Ports[0].Port = []netip.Addr{at.Addr()}, at.Port()
	w := workload(0, 0, true)
	w.Capture, w.Addresses = mesh.Explicit, []netip.Addr{at.Addr()}
	w.Ports = []mesh.WorkloadPort{{App: s.Ports[0].Target, Peer: freePort(b), Local: freePort(b)}}
	return s, w
}

func hopRoute(s *mesh.Service, weight uint32) *mesh.Route {
	r := route(0, weight)
	for i := range r.Rules[0].Backends {
		r.Rules[0].Backends[i].Port = s.Ports[0].Port
	}
	return r
}

// open adds the listener of an explicit sidecar to what a captured one has.
func (p *plane) open(b *testing.B, w *mesh.Workload, s *mesh.Service, local netip.AddrPort) {
	b.Helper()
	r, err := xds.NewResource(
		xds.Key{Type: translate.ListenerType, Name: translate.UpstreamName(local), Variant: controlplane.WorkloadVariant(w.Name)},
		translate.Upstream(translate.UpstreamIn{
			Service: s.Name, Port: s.Ports[0].Port, Protocol: mesh.HTTP, Local: local,
			TraceSampling: mesh.DefaultMeshConfig().TraceSampling,
		}), nil)
	if err != nil {
		b.Fatal(err)
	}
	p.cache.Update([]*xds.Resource{r}, nil)
}

// fixed is an SVID and a bundle that never change.
type fixed struct {
	*x509svid.SVID
	*x509bundle.Bundle
}

func (fixed) Updated() <-chan struct{} { return nil }

// envoy starts a workload's Envoy with configuration and secrets on a socket, as its
// agent would serve them, and gives its process and what serves it.
func (p *plane) envoy(b *testing.B, w *mesh.Workload) (pid int, server *xds.Server) {
	b.Helper()
	dir := b.TempDir()
	config := bootstrap.DefaultConfig()
	config.ID, config.Cluster = w.Name.String(), w.Name.String()
	config.AdminSocket, config.AgentSocket = filepath.Join(dir, "admin"), filepath.Join(dir, "agent")
	server = p.agent(b, w, config.AgentSocket)
	file := filepath.Join(dir, "envoy.json")
	if err := bootstrap.Write(config, file, -1); err != nil {
		b.Fatal(err)
	}
	pid = background(b, exec.Command(partstest.Envoy(b), bootstrap.Command(config, file)...))
	admin := envoy.NewAdmin(config.AdminSocket)
	xdstest.Eventually(b, "Envoy serves", func() bool { return admin.Ready(b.Context()) == nil })
	return pid, server
}

// background runs a process until the benchmark ends.
func background(b *testing.B, cmd *exec.Cmd) (pid int) {
	b.Helper()
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	return cmd.Process.Pid
}

func (p *plane) agent(b *testing.B, w *mesh.Workload, socket string) *xds.Server {
	b.Helper()
	chain, key := p.sign(b, w.Identity)
	svid, err := x509svid.ParseRaw(slices.Concat(chain...), key)
	if err != nil {
		b.Fatal(err)
	}
	server := xds.NewServer(xds.Config{
		Cache: p.cache, Settled: p.settled,
		Connect: p.pipeline.Connect(func(context.Context) (spiffeid.ID, bool) { return w.Identity, true }, nil),
	})
	g := grpc.NewServer(grpc.ForceServerCodecV2(xds.Codec()))
	discoveryv3.RegisterAggregatedDiscoveryServiceServer(g, server)
	secretv3.RegisterSecretDiscoveryServiceServer(g, sds.New(fixed{svid, p.ca.Bundle()}, p.ca.TrustDomain(), nil))
	l, err := channel.ListenUnix(socket)
	if err != nil {
		b.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- g.Serve(l) }()
	b.Cleanup(func() {
		g.Stop()
		if err := <-done; err != nil {
			b.Error(err)
		}
	})
	return server
}

// freePort is a port of loopback that nobody listens on.
func freePort(b *testing.B) uint16 {
	b.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).AddrPort().Port()
}
