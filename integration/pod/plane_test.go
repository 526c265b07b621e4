package pod

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"sync"
	"testing"

	"github.com/miekg/dns"

	"github.com/heddle-mesh/heddle/controlplane/mesh"
	"github.com/heddle-mesh/heddle/controlplane/serve"
	"github.com/heddle-mesh/heddle/identity/attest"
	"github.com/heddle-mesh/heddle/identity/channel"
	"github.com/heddle-mesh/heddle/identity/spiffeid"
)

const trustDomain = "pods.example"

// plane is a control plane that runs in the node's network, and can be stopped and started.
type plane struct {
	t      *testing.T
	config serve.Config
	roots  string // fingerprints of its root certificates
	stop   func()

	mu     sync.Mutex // guards what follows
	mesh   []mesh.Change
	submit serve.Submit
	tokens map[string]spiffeid.ID // by a pod's service account token
}

func newPlane(t *testing.T, listen string) *plane {
	p := &plane{t: t, tokens: map[string]spiffeid.ID{}}
	c := serve.DefaultConfig()
	c.StateDir, c.Listen, c.Metrics, c.TrustDomain = t.TempDir(), listen, "", trustDomain
	c.Socket, c.Log = filepath.Join(c.StateDir, "cp.sock"), logTo(t, "control plane")
	c.Virtual.VirtualV4, c.Virtual.VirtualV6 = netip.Prefix{}, netip.Prefix{}
	c.Workloads = []netip.Prefix{netip.MustParsePrefix("10.96.0.0/16"), netip.MustParsePrefix("fd00:96::/112")} // of Services
	p.config = c
	p.start()
	return p
}

// start runs it until stop.
func (p *plane) start() {
	roots := make(chan string, 1)
	c := p.config
	c.Outside = &serve.Outside{
		Open: func(submit serve.Submit) (serve.Source, error) { return &source{p, submit, make(chan struct{})}, nil },
		Run: func(ctx context.Context, parts serve.Parts) error {
			roots <- channel.FingerprintOf(parts.CA.Bundle().X509Authorities()[0]).String()
			<-ctx.Done()
			return nil
		},
		Attestors: []attest.Attestor{p.attest},
	}
	ctx, cancel := context.WithCancel(p.t.Context())
	done := make(chan error, 1)
	go func() { done <- serve.Run(ctx, c) }()
	p.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			p.t.Errorf("control plane: %v", err)
		}
	})
	p.t.Cleanup(p.stop)
	p.roots = <-roots
}

// attest takes the tokens that pods were given.
func (p *plane) attest(_ context.Context, e attest.Evidence) (attest.Attested, error) {
	if e.ServiceAccountToken == "" {
		return attest.Attested{}, attest.ErrNotMine
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	id, ok := p.tokens[e.ServiceAccountToken.Reveal()]
	if !ok {
		return attest.Attested{}, fmt.Errorf("%w: no such token", attest.ErrUnauthenticated)
	}
	return attest.Attested{ID: id}, nil
}

// set changes the mesh.
func (p *plane) set(objects ...mesh.Object) {
	p.t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	var changes []mesh.Change
	for _, o := range objects {
		o.Header().Generation = 1
		changes = append(changes, mesh.Set(o))
	}
	p.mesh = append(p.mesh, changes...)
	if p.submit != nil {
		if _, err := p.submit(changes); err != nil {
			p.t.Error(err)
		}
	}
}

// source brings the mesh as it is set, as the watch of an API server would.
type source struct {
	plane  *plane
	submit serve.Submit
	synced chan struct{}
}

func (s *source) Run(ctx context.Context) error {
	p := s.plane
	p.mu.Lock()
	_, err := s.submit(p.mesh)
	p.submit = s.submit
	p.mu.Unlock()
	close(s.synced)
	<-ctx.Done()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.submit = nil
	return err
}

func (s *source) Synced() <-chan struct{} { return s.synced }

// service is a Sliced service of port 80 and the slices of its one endpoint, a pod.
func service(name, protocol string, port uint16, vips []netip.Addr, pod string, addresses []netip.Addr) []mesh.Object {
	ref := func(kind mesh.Kind, name string) mesh.Meta {
		return mesh.Meta{Ref: mesh.Ref{Kind: kind, Name: mesh.Name{Namespace: "default", Name: name}}}
	}
	out := []mesh.Object{&mesh.Service{
		Meta: ref(mesh.KindService, name), VirtualIPs: vips, Sliced: true,
		Ports: []mesh.ServicePort{{Name: "main", Port: 80, Protocol: mesh.Protocol(protocol)}},
	}}
	for i, a := range addresses {
		out = append(out, &mesh.EndpointSlice{
			Meta: ref(mesh.KindEndpointSlice, fmt.Sprintf("%s-%d", name, i)), Service: name,
			Ports:     []mesh.EndpointPort{{Name: "main", Number: port}},
			Endpoints: []mesh.Endpoint{{Addresses: []netip.Addr{a}, Workload: pod, Ready: true, Serving: true}},
		})
	}
	return out
}

// startClusterDNS serves names at address as a cluster's DNS does: those of host names, and
// NXDOMAIN for others.
func startClusterDNS(t *testing.T, address string, hosts map[string]netip.Addr) {
	t.Helper()
	handler := dns.HandlerFunc(func(w dns.ResponseWriter, r *dns.Msg) {
		m := new(dns.Msg).SetReply(r)
		q := r.Question[0]
		switch addr, ok := hosts[q.Name]; {
		case !ok:
			m.Rcode = dns.RcodeNameError
		case q.Qtype == dns.TypeAAAA && addr.Is6():
			m.Answer = []dns.RR{&dns.AAAA{Hdr: dns.RR_Header{Name: q.Name, Rrtype: q.Qtype, Class: dns.ClassINET, Ttl: 5}, AAAA: addr.AsSlice()}}
		case q.Qtype == dns.TypeA && addr.Is4():
			m.Answer = []dns.RR{&dns.A{Hdr: dns.RR_Header{Name: q.Name, Rrtype: q.Qtype, Class: dns.ClassINET, Ttl: 5}, A: addr.AsSlice()}}
		}
		_ = w.WriteMsg(m)
	})
	conn, err := net.ListenPacket("udp", address)
	if err != nil {
		t.Fatal(err)
	}
	server := &dns.Server{PacketConn: conn, Handler: handler}
	done := make(chan error, 1)
	go func() { done <- server.ActivateAndServe() }()
	t.Cleanup(func() { conn.Close(); <-done })
}
