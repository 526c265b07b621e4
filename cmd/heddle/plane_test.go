package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc"

	"github.com/heddle-mesh/heddle/controlplane"
	"github.com/heddle-mesh/heddle/controlplane/admin"
	"github.com/heddle-mesh/heddle/controlplane/mesh"
	"github.com/heddle-mesh/heddle/controlplane/translate"
	"github.com/heddle-mesh/heddle/controlplane/xds"
	"github.com/heddle-mesh/heddle/controlplane/xds/xdstest"
	"github.com/heddle-mesh/heddle/discovery/api"
	"github.com/heddle-mesh/heddle/discovery/api/apipb"
	"github.com/heddle-mesh/heddle/discovery/manifest"
	"github.com/heddle-mesh/heddle/discovery/state"
	identityv1 "github.com/heddle-mesh/heddle/identity/api"
	"github.com/heddle-mesh/heddle/identity/attest"
	"github.com/heddle-mesh/heddle/identity/ca"
	"github.com/heddle-mesh/heddle/identity/server"
	"github.com/heddle-mesh/heddle/identity/spiffeid"
)

// plane is a control plane on a Unix socket, all of it real, but that simulated proxies
// need no certificate.
type plane struct {
	t        *testing.T
	dir      string
	socket   string
	pipeline *controlplane.Pipeline
	xds      *xds.Server
	writer   *state.Writer
	conn     *grpc.ClientConn
}

func newPlane(t *testing.T) *plane {
	t.Helper()
	p := &plane{t: t, dir: xdstest.Dir(t)}
	p.socket = filepath.Join(p.dir, controlPlaneSocket)
	cache := xds.NewCache()
	config := state.DefaultConfig()
	var err error
	p.pipeline, err = controlplane.NewPipeline(mesh.DefaultMeshConfig(), cache, config.VirtualV4, config.VirtualV6)
	fatal(t, err)
	p.xds = xds.NewServer(xds.Config{Cache: cache, Patience: 50 * time.Millisecond, Connect: func(_ context.Context, node *corev3.Node) (xds.Proxy, error) {
		_, name, _ := strings.Cut(node.GetId(), "/")
		w := p.pipeline.Snapshot().Workloads.Get(mesh.Name{Namespace: "default", Name: name})
		if w == nil {
			return xds.Proxy{}, errors.New("unknown workload")
		}
		return xds.Proxy{ID: node.GetId(), Variants: controlplane.Variants(w)}, nil
	}})
	authority := ca.DefaultConfig()
	authority.TrustDomain = "mesh.local"
	opened, err := ca.Open(filepath.Join(p.dir, "ca"), authority)
	fatal(t, err)
	p.serve(opened, config)
	return p
}

// serve opens the state and the servers, until the test ends.
func (p *plane) serve(authority *ca.CA, config state.Config) {
	t := p.t
	db, err := state.Open(filepath.Join(p.dir, "state"), config)
	fatal(t, err)
	p.writer = state.NewWriter(db, func(changes []mesh.Change) (uint64, map[mesh.Ref][]string, error) {
		revision, err := p.pipeline.Submit(changes)
		return revision, nil, err
	})
	admin, err := admin.New(admin.Config{Pipeline: p.pipeline, XDS: p.xds, CA: authority})
	fatal(t, err)
	objects, err := api.NewServer(api.Config{Writer: p.writer, Status: admin.Status, Grace: time.Hour, Log: slog.New(slog.DiscardHandler),
		Identity: func(context.Context) (spiffeid.ID, error) { return spiffeid.ID{}, errors.New("none") }})
	fatal(t, err)
	tokens, err := attest.OpenTokens(filepath.Join(p.dir, "ca"), "mesh.local")
	fatal(t, err)
	identity, err := server.New(server.Config{CA: authority, Tokens: tokens})
	fatal(t, err)
	l, err := net.Listen("unix", p.socket)
	fatal(t, err)
	s := grpc.NewServer(grpc.Creds(attest.UnixCredentials()), grpc.ForceServerCodecV2(xds.Codec()), grpc.MaxRecvMsgSize(api.MaxMessage))
	apipb.RegisterObjectsServer(s, objects)
	apipb.RegisterMeshServer(s, admin)
	identityv1.RegisterIdentityServer(s, identity)
	discoveryv3.RegisterAggregatedDiscoveryServiceServer(s, p.xds)
	served := make(chan error, 1)
	go func() { served <- s.Serve(l) }()
	p.conn, err = grpc.NewClient("unix:"+p.socket, grpc.WithTransportCredentials(attest.UnixCredentials()))
	fatal(t, err)
	t.Cleanup(func() {
		p.conn.Close()
		s.Stop()
		<-served
		db.Close()
	})
}

func fatal(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// register puts a workload into the mesh, as an agent does.
func (p *plane) register(name, app string, last byte, labels ...string) {
	p.t.Helper()
	id, err := spiffeid.New("mesh.local", "default", app)
	fatal(p.t, err)
	w := &mesh.Workload{Meta: mesh.Meta{Ref: mesh.Ref{Kind: mesh.KindWorkload, Name: mesh.Name{Namespace: "default", Name: name}}},
		Identity: id, Labels: map[string]string{"app": app}, Zone: "a", Addresses: []netip.Addr{netip.AddrFrom4([4]byte{10, 68, 0, last})},
		Ports: []mesh.WorkloadPort{{App: 8080, Peer: 8080}}, Capture: mesh.Transparent, Ready: true}
	for _, l := range labels {
		k, v, _ := strings.Cut(l, "=")
		w.Labels[k] = v
	}
	document, err := manifest.EncodeWorkload(w)
	fatal(p.t, err)
	_, err = p.writer.Write(state.Batch{Put: []state.Item{{Object: w, Document: document}}})
	fatal(p.t, err)
}

// connect starts a simulated proxy of a workload.
func (p *plane) connect(workload string, judge func(*discoveryv3.DeltaDiscoveryResponse) error) {
	p.t.Helper()
	ctx, cancel := context.WithCancel(p.t.Context())
	client, err := xdstest.Open(ctx, p.conn, "default/"+workload)
	fatal(p.t, err)
	client.Judge = judge
	for _, typ := range []string{translate.ClusterType, translate.ListenerType} {
		fatal(p.t, client.Subscribe(typ))
	}
	fatal(p.t, client.Subscribe(translate.EndpointsType, "api.default:80", "api-v1.default:80", "api-v2.default:80"))
	fatal(p.t, client.Subscribe(translate.RoutesType, "api.default:80", "api-v1.default:80", "api-v2.default:80"))
	done := make(chan struct{})
	go func() { defer close(done); client.Run() }()
	p.t.Cleanup(func() { cancel(); <-done })
	timeout := time.After(20 * time.Second)
	for {
		changed := p.xds.Changed()
		for _, s := range p.xds.Status() {
			if s.Proxy.ID == "default/"+workload && len(s.Types) == 4 && s.Settled >= s.Cursor {
				return
			}
		}
		select {
		case <-changed:
		case <-timeout:
			p.t.Fatalf("proxy %s does not settle: %+v", workload, p.xds.Status())
		}
	}
}

// buffer is what commands write to; they may write from several goroutines.
type buffer struct {
	mu sync.Mutex // guards b
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// heddle runs a command line in this process.
func (p *plane) heddle(stdin string, line ...string) (code int, stdout, stderr string) {
	p.t.Helper()
	p.t.Setenv(controlPlaneEnv, p.socket)
	var out, err buffer
	code = run(line, &env{stdin: strings.NewReader(stdin), stdout: &out, stderr: &err})
	return code, out.String(), err.String()
}

// ok runs a command line that must succeed, and gives what it wrote to stdout.
func (p *plane) ok(stdin string, line ...string) string {
	p.t.Helper()
	code, stdout, stderr := p.heddle(stdin, line...)
	if code != 0 {
		p.t.Fatalf("heddle %s: exit code %d\n%s%s", strings.Join(line, " "), code, stdout, stderr)
	}
	return stdout
}

var ages = regexp.MustCompile(`\b\d+s\b`)

// same compares output with what is wanted, but for ages and trailing spaces.
func (p *plane) same(what, got, want string) {
	p.t.Helper()
	clean := func(s string) string {
		var lines []string
		for line := range strings.Lines(ages.ReplaceAllString(strings.TrimSpace(s), "0s")) {
			lines = append(lines, strings.TrimSpace(line))
		}
		return strings.Join(lines, "\n")
	}
	if clean(got) != clean(want) {
		p.t.Errorf("%s:\n%s\nwant:\n%s", what, got, want)
	}
}

func (p *plane) file(name, text string) string {
	p.t.Helper()
	path := filepath.Join(p.dir, name)
	fatal(p.t, os.MkdirAll(filepath.Dir(path), 0o700))
	fatal(p.t, os.WriteFile(path, []byte(text), 0o600))
	return path
}

// shop is an api in two versions.
const shop = `
apiVersion: v1
kind: Service
metadata: {name: api}
spec: {selector: {app: api}, ports: [{port: 80, targetPort: 8080, appProtocol: http}]}
---
apiVersion: v1
kind: Service
metadata: {name: api-v1}
spec: {selector: {app: api, version: v1}, ports: [{port: 80, targetPort: 8080, appProtocol: http}]}
---
apiVersion: v1
kind: Service
metadata: {name: api-v2}
spec: {selector: {app: api, version: v2}, ports: [{port: 80, targetPort: 8080, appProtocol: http}]}
`

// newShop has two replicas with a proxy each.
func newShop(t *testing.T) *plane {
	p := newPlane(t)
	p.ok(shop, "apply", "-f", "-")
	p.register("api-1", "api", 1, "version=v1")
	p.register("api-2", "api", 2, "version=v2")
	p.connect("api-1", nil)
	p.connect("api-2", nil)
	return p
}

// connectJudged starts a proxy that answers nothing while on, until hold is closed.
func (p *plane) connectJudged(workload string, hold <-chan struct{}, on *atomic.Bool) {
	p.connect(workload, func(*discoveryv3.DeltaDiscoveryResponse) error {
		if on.Load() {
			<-hold
		}
		return nil
	})
}

// newPlaneAt puts a socket in dir behind which p answers.
func newPlaneAt(t *testing.T, dir string, p *plane) string {
	t.Helper()
	fatal(t, os.MkdirAll(dir, 0o700))
	path := filepath.Join(dir, controlPlaneSocket)
	if len(path) > 100 {
		t.Skipf("%s is too long for a socket", path)
	}
	l, err := net.Listen("unix", path)
	fatal(t, err)
	var all sync.WaitGroup
	all.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			up, err := net.Dial("unix", p.socket)
			if err != nil {
				conn.Close()
				continue
			}
			all.Go(func() { defer up.Close(); _, _ = io.Copy(up, conn) })
			all.Go(func() { defer conn.Close(); _, _ = io.Copy(conn, up) })
		}
	})
	t.Cleanup(func() { l.Close(); all.Wait() })
	return path
}
