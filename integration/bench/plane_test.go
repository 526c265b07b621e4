package bench

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"sync"
	"testing"
	"time"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc"

	"github.com/heddle-mesh/heddle/controlplane"
	"github.com/heddle-mesh/heddle/controlplane/mesh"
	"github.com/heddle-mesh/heddle/controlplane/xds"
	"github.com/heddle-mesh/heddle/identity/ca"
	"github.com/heddle-mesh/heddle/identity/channel"
	"github.com/heddle-mesh/heddle/identity/server"
	"github.com/heddle-mesh/heddle/identity/spiffeid"
)

const trustDomain = "mesh.local"

// plane is a control plane in this process, without the sources of objects, so that this
// process's processor time and memory are those of the control plane.
type plane struct {
	ca       *ca.CA
	cache    *xds.Cache
	pipeline *controlplane.Pipeline
	xds      *xds.Server

	mu      sync.Mutex // guards what follows
	target  uint64     // revision that is waited for
	waiting map[string]bool
	all     chan struct{} // closed when nobody is waited for
}

// newPlane makes one over an empty mesh whose addresses are in prefixes.
func newPlane(b *testing.B, prefixes ...netip.Prefix) *plane {
	b.Helper()
	config := ca.DefaultConfig()
	config.TrustDomain = trustDomain
	p := &plane{cache: xds.NewCache()}
	var err error
	if p.ca, err = ca.Open(filepath.Join(b.TempDir(), "ca"), config); err != nil {
		b.Fatal(err)
	}
	if p.pipeline, err = controlplane.NewPipeline(mesh.DefaultMeshConfig(), p.cache, prefixes...); err != nil {
		b.Fatal(err)
	}
	p.xds = xds.NewServer(xds.Config{
		Cache: p.cache, Connect: p.pipeline.Connect(channel.PeerID, nil), Settled: p.settled,
		Linger: 2 * time.Second, // as in controlplane/serve
	})
	return p
}

// Serve serves proxies over TCP with mutual TLS, as "heddle controlplane" does, and gives
// the address.
func (p *plane) Serve(b *testing.B) string {
	b.Helper()
	options, err := server.TCPOptions(p.ca)
	if err != nil {
		b.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	g := grpc.NewServer(append(options, grpc.ForceServerCodecV2(xds.Codec()))...)
	discoveryv3.RegisterAggregatedDiscoveryServiceServer(g, p.xds)
	done := make(chan error, 1)
	go func() { done <- g.Serve(l) }()
	b.Cleanup(func() {
		g.Stop()
		if err := <-done; err != nil {
			b.Error(err)
		}
	})
	return l.Addr().String()
}

// settled is told of every answer of a proxy.
func (p *plane) settled(proxy string, revision uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.waiting[proxy] || revision < p.target {
		return
	}
	if delete(p.waiting, proxy); len(p.waiting) == 0 {
		close(p.all)
	}
}

// Push submits one change and gives the time to the last ACK of the proxies.
func (p *plane) Push(b *testing.B, proxies []string, object mesh.Object) time.Duration {
	b.Helper()
	p.mu.Lock()
	all := make(chan struct{})
	p.target, p.waiting, p.all = p.cache.Revision()+1, map[string]bool{}, all
	for _, name := range proxies {
		p.waiting[name] = true
	}
	p.mu.Unlock()
	began := time.Now()
	if _, err := p.pipeline.Submit([]mesh.Change{mesh.Set(object)}); err != nil {
		b.Fatal(err)
	}
	select {
	case <-all:
		return time.Since(began)
	case <-time.After(time.Minute):
		p.mu.Lock()
		defer p.mu.Unlock()
		b.Fatalf("%d proxies have not answered", len(p.waiting))
		return 0
	}
}

// sign makes a key and an SVID.
func (p *plane) sign(b *testing.B, id spiffeid.ID) (chain [][]byte, key []byte) {
	b.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		b.Fatal(err)
	}
	request, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, private)
	if err != nil {
		b.Fatal(err)
	}
	csr, err := ca.ParseCSR(request)
	if err != nil {
		b.Fatal(err)
	}
	certificates, err := p.ca.Sign(csr, id)
	if err != nil {
		b.Fatal(err)
	}
	for _, c := range certificates {
		chain = append(chain, c.Raw)
	}
	if key, err = x509.MarshalPKCS8PrivateKey(private); err != nil {
		b.Fatal(err)
	}
	return chain, key
}

// Objects of a mesh of services s0, s1 and so on, each with two workloads and a route.

func serviceName(i int) mesh.Name { return mesh.Name{Namespace: "default", Name: fmt.Sprint("s", i)} }

func meta(kind mesh.Kind, name string) mesh.Meta {
	return mesh.Meta{Ref: mesh.Ref{Kind: kind, Name: mesh.Name{Namespace: "default", Name: name}}, Generation: 1}
}

func services(n int) []mesh.Change {
	var out []mesh.Change
	for i := range n {
		out = append(out, mesh.Set(service(i)), mesh.Set(workload(i, 0, true)), mesh.Set(workload(i, 1, true)), mesh.Set(route(i, 1)))
	}
	return out
}

func virtualIP(i int) netip.Addr { return netip.AddrFrom4([4]byte{100, 96, byte(i >> 8), byte(i)}) }

func service(i int) *mesh.Service {
	name := serviceName(i).Name
	return &mesh.Service{
		Meta: meta(mesh.KindService, name), Selector: map[string]string{"app": name}, VirtualIPs: []netip.Addr{virtualIP(i)},
		Ports: []mesh.ServicePort{{Name: "http", Port: 80, Target: 8080, Protocol: mesh.HTTP}},
	}
}

func identity(service int) spiffeid.ID {
	id, err := spiffeid.New(trustDomain, "default", serviceName(service).Name)
	if err != nil {
		panic(err) // of constants
	}
	return id
}

func workload(service, n int, ready bool) *mesh.Workload {
	name := serviceName(service).Name
	return &mesh.Workload{
		Meta:     meta(mesh.KindWorkload, fmt.Sprint(name, "-", n)),
		Identity: identity(service), Labels: map[string]string{"app": name}, Ready: ready, Capture: mesh.Transparent,
		Addresses: []netip.Addr{netip.AddrFrom4([4]byte{10, 68 + byte(n), byte(service >> 8), byte(service)})},
		Ports:     []mesh.WorkloadPort{{App: 8080, Peer: 8080}},
	}
}

func route(service int, weight uint32) *mesh.Route {
	name := serviceName(service)
	return &mesh.Route{
		Meta: meta(mesh.KindHTTPRoute, fmt.Sprint("r", service)), Parents: []mesh.Parent{{Service: name}},
		Rules: []mesh.Rule{{
			Matches:  []mesh.Match{{Path: mesh.StringMatch{Kind: mesh.Prefix, Value: "/"}}},
			Backends: []mesh.Backend{{Service: name, Port: 80, Weight: 100}, {Service: name, Port: 80, Weight: weight}},
		}},
	}
}
