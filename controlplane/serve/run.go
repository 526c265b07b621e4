package serve

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"path/filepath"
	"slices"
	"time"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	"github.com/heddle-mesh/heddle/controlplane"
	"github.com/heddle-mesh/heddle/controlplane/admin"
	"github.com/heddle-mesh/heddle/controlplane/mesh"
	"github.com/heddle-mesh/heddle/controlplane/xds"
	"github.com/heddle-mesh/heddle/discovery/api"
	"github.com/heddle-mesh/heddle/discovery/api/apipb"
	"github.com/heddle-mesh/heddle/discovery/file"
	"github.com/heddle-mesh/heddle/discovery/manifest"
	"github.com/heddle-mesh/heddle/discovery/state"
	identityv1 "github.com/heddle-mesh/heddle/identity/api"
	"github.com/heddle-mesh/heddle/identity/attest"
	"github.com/heddle-mesh/heddle/identity/ca"
	"github.com/heddle-mesh/heddle/identity/channel"
	"github.com/heddle-mesh/heddle/identity/server"
	"github.com/heddle-mesh/heddle/identity/spiffeid"
	"github.com/heddle-mesh/heddle/telemetry/stats"
)

// controlPlane is what Run wires.
type controlPlane struct {
	config   Config
	pipeline *controlplane.Pipeline
	xds      *xds.Server
	ca       *ca.CA
	identity *server.Server
	admin    *admin.Server
	tracer   *tracer
	scopes   *controlplane.Scopes // nil where every proxy has everything
	unsaved  chan state.Use       // of scopes; nil without a db
	ready    chan struct{}        // closed when agents are served

	db      *state.DB     // nil where the objects live outside
	writer  *state.Writer // nil with it
	objects *api.Server   // nil with it
	files   *file.Source  // nil without a directory
	source  Source        // nil where we keep the objects
}

// Run runs a control plane until the context is done.
func Run(ctx context.Context, config Config) (err error) {
	if err := config.Validate(); err != nil {
		return err
	}
	cp := &controlPlane{config: config, ready: make(chan struct{})}
	if config.Outside == nil {
		if cp.db, err = state.Open(config.StateDir, config.Virtual); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, cp.db.Close()) }()
	}
	if err := errors.Join(cp.openIdentity(ctx), cp.openPipeline()); err != nil {
		return err
	}
	shutdown, err := cp.openTracing(ctx)
	if err != nil {
		return err
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
		defer cancel()
		if err := shutdown(ctx); err != nil { // the collector may be gone already
			cp.config.Log.Warn("the last traces are lost", "error", err)
		}
	}()
	if err := cp.openSources(); err != nil {
		return err
	}
	return cp.serve(ctx)
}

func (cp *controlPlane) openIdentity(ctx context.Context) (err error) {
	c := ca.DefaultConfig()
	c.TrustDomain, c.SVIDTTL, c.Log = cp.config.TrustDomain, cp.config.SVIDTTL, cp.config.Log
	dir := filepath.Join(cp.config.StateDir, "identity")
	if cp.config.Issuer != nil {
		cp.ca, err = cp.config.Issuer.Open(ctx, c)
	} else {
		cp.ca, err = ca.Open(dir, c)
	}
	if err != nil {
		return err
	}
	tokens, err := attest.OpenTokens(dir, c.TrustDomain)
	if err != nil {
		return err
	}
	attestors := server.DefaultAttestors(cp.ca, tokens)
	if cp.config.Outside != nil {
		attestors = append(slices.Clip(cp.config.Outside.Attestors), attestors...)
	}
	own := server.Config{CA: cp.ca, Tokens: tokens, Attestors: attestors, Log: cp.config.Log}
	if roots := cp.config.Roots; roots != nil {
		own.Rotate = func(ctx context.Context) error { return roots.Prepare(ctx, cp.ca) }
	}
	cp.identity, err = server.New(own)
	return err
}

// rotateRoots takes the steps of rotations of the root.
func (cp *controlPlane) rotateRoots(ctx context.Context) error {
	switch {
	case cp.config.Issuer != nil:
		return cp.config.Issuer.Follow(ctx, cp.ca)
	case cp.config.Roots != nil:
		return cp.config.Roots.Follow(ctx, cp.ca)
	}
	return cp.ca.Rotate(ctx)
}

func (cp *controlPlane) openPipeline() (err error) {
	config := mesh.DefaultMeshConfig()
	config.TrustDomain, config.ClusterDomain = cp.config.TrustDomain, cp.config.ClusterDomain
	cache := xds.NewCache()
	if cp.pipeline, err = controlplane.NewPipeline(config, cache, cp.config.prefixes()...); err != nil {
		return err
	}
	if err := cp.openScopes(); err != nil {
		return err
	}
	cp.xds = xds.NewServer(xds.Config{
		Cache: cache, Connect: cp.pipeline.Connect(channel.PeerID, cp.scopes), Log: cp.config.Log, Asked: cp.asked,
		// What is removed goes when what used it has certainly let go.
		Linger: 2 * time.Second,
	})
	cp.admin, err = admin.New(admin.Config{Pipeline: cp.pipeline, XDS: cp.xds, CA: cp.ca})
	return err
}

// openSources opens the state, and submits all that it remembers before anybody can
// connect: a proxy must never see half of a mesh.
func (cp *controlPlane) openSources() (err error) {
	if outside := cp.config.Outside; outside != nil {
		cp.source, err = outside.Open(func(changes []mesh.Change) (uint64, error) {
			return cp.tracer.submit(changes, cp.pipeline.Submit)
		})
		return err
	}
	cp.writer = state.NewWriter(cp.db, cp.submit)
	options := manifest.Options{TrustDomain: cp.config.TrustDomain, ClusterDomain: cp.config.ClusterDomain}
	directory := ""
	if cp.config.Objects != "" {
		c := file.DefaultConfig()
		c.Directory, c.Options, c.Writer, c.Log = cp.config.Objects, options, cp.writer, cp.config.Log
		if cp.files, err = file.New(c); err != nil {
			return err
		}
		directory = cp.files.Directory()
	}
	changes, bad, err := cp.writer.Load(directory, api.Decode(options))
	if err != nil {
		return err
	}
	for _, problem := range bad {
		cp.config.Log.Error("an object in the state is left out", "error", problem)
	}
	if _, err := cp.pipeline.Submit(changes); err != nil {
		return err
	}
	if cp.files != nil {
		cp.files.Scan()
	}
	c := api.DefaultConfig()
	c.Writer, c.Options, c.Status, c.Grace, c.Log = cp.writer, options, cp.admin.Status, cp.config.Grace, cp.config.Log
	c.Settled = cp.admin.Settled
	c.Identity = func(ctx context.Context) (spiffeid.ID, error) {
		if id, ok := channel.PeerID(ctx); ok {
			return id, nil
		}
		return spiffeid.ID{}, errors.New("no SVID presented")
	}
	cp.objects, err = api.NewServer(c)
	return err
}

func (cp *controlPlane) submit(changes []mesh.Change) (uint64, map[mesh.Ref][]string, error) {
	revision, err := cp.tracer.submit(changes, cp.pipeline.Submit)
	return revision, cp.admin.Warnings(changes), err
}

// serve opens the ports and runs everything until the context is done.
func (cp *controlPlane) serve(ctx context.Context) error {
	agents, err := cp.agentServer()
	if err != nil {
		return err
	}
	tcp, err := net.Listen("tcp", cp.config.Listen)
	if err != nil {
		return fmt.Errorf("listen for agents (--listen): %w", err)
	}
	unix, err := listenUnix(cp.config.Socket)
	if err != nil {
		return errors.Join(err, tcp.Close())
	}
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error {
		if !cp.awaitSource(ctx) {
			return tcp.Close()
		}
		cp.config.Log.Info("control plane is ready", "agents", tcp.Addr().String(), "socket", cp.config.Socket,
			"trustDomain", cp.config.TrustDomain)
		close(cp.ready)
		return channel.Serve(ctx, agents, tcp)
	})
	group.Go(func() error { return channel.Serve(ctx, cp.localServer(), unix) })
	group.Go(func() error { return cp.tracer.run(ctx) })
	group.Go(func() error { return cp.rotateRoots(ctx) })
	if cp.unsaved != nil {
		group.Go(func() error { return cp.saveScopes(ctx) })
	}
	cp.runSources(ctx, group)
	if err := cp.serveMetrics(ctx, group); err != nil {
		group.Go(func() error { return err })
	}
	if err := group.Wait(); err != nil && !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

// awaitSource waits until a source outside has brought all of the mesh; false is the end.
func (cp *controlPlane) awaitSource(ctx context.Context) bool {
	if cp.source == nil {
		return true // openSources has loaded it
	}
	select {
	case <-cp.source.Synced():
		return true
	case <-ctx.Done():
		return false
	}
}

// runSources runs what brings objects and registrations.
func (cp *controlPlane) runSources(ctx context.Context, group *errgroup.Group) {
	if cp.objects != nil {
		group.Go(func() error { return cp.objects.Run(ctx) })
	}
	if cp.files != nil {
		group.Go(func() error { return cp.files.Run(ctx) })
	}
	if cp.source == nil {
		return
	}
	group.Go(func() error { return cp.source.Run(ctx) })
	if run := cp.config.Outside.Run; run != nil {
		parts := Parts{Pipeline: cp.pipeline, Admin: cp.admin, XDS: cp.xds, CA: cp.ca, Dial: cp.dialReplica}
		group.Go(func() error { return run(ctx, parts) })
	}
}

// agentServer serves what agents and proxies need, to holders of an SVID.
func (cp *controlPlane) agentServer() (*grpc.Server, error) {
	options, err := server.TCPOptions(cp.ca)
	if err != nil {
		return nil, err
	}
	s := grpc.NewServer(append(options, grpc.ForceServerCodecV2(xds.Codec()), grpc.MaxConcurrentStreams(100))...)
	identityv1.RegisterIdentityServer(s, cp.identity)
	if cp.objects != nil {
		apipb.RegisterWorkloadsServer(s, cp.objects)
	} else {
		own, err := channel.ControlPlane(cp.config.TrustDomain)
		if err != nil {
			return nil, err
		}
		apipb.RegisterReplicaServer(s, admin.NewReplica(cp.admin, channel.PeerID, own))
	}
	discoveryv3.RegisterAggregatedDiscoveryServiceServer(s, cp.xds)
	return s, nil
}

// dialReplica connects to another replica, which has the identity that we have.
func (cp *controlPlane) dialReplica(address string) (*grpc.ClientConn, error) {
	own, err := server.NewOwnSVID(cp.ca)
	if err != nil {
		return nil, err
	}
	id, err := channel.ControlPlane(cp.config.TrustDomain)
	if err != nil {
		return nil, err
	}
	config, err := channel.Client(own, cp.ca, id)
	if err != nil {
		return nil, err
	}
	return grpc.NewClient("passthrough:///"+address, append(channel.ClientAlive(), grpc.WithTransportCredentials(credentials.NewTLS(config)))...)
}

// localServer serves people, and agents that have no identity yet, on the Unix socket.
func (cp *controlPlane) localServer() *grpc.Server {
	s := grpc.NewServer(grpc.Creds(attest.UnixCredentials()), grpc.MaxRecvMsgSize(api.MaxMessage))
	identityv1.RegisterIdentityServer(s, cp.identity)
	if cp.objects != nil {
		apipb.RegisterObjectsServer(s, cp.objects)
	} else {
		apipb.RegisterObjectsServer(s, api.Elsewhere{Advice: cp.config.Outside.Advice})
	}
	apipb.RegisterMeshServer(s, cp.admin)
	return s
}

func (cp *controlPlane) serveMetrics(ctx context.Context, group *errgroup.Group) error {
	if cp.config.Metrics == "" {
		return nil
	}
	registry := stats.NewRegistry()
	registry.MustRegister(newCollector(cp))
	l, err := net.Listen("tcp", cp.config.Metrics)
	if err != nil {
		return fmt.Errorf("listen for Prometheus (--metrics): %w", err)
	}
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", stats.Handler(stats.Config{Own: registry, Log: cp.config.Log}))
	mux.HandleFunc("GET /livez", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	mux.HandleFunc("GET /readyz", cp.serveReady)
	s := &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second, MaxHeaderBytes: 16 << 10}
	stop := context.AfterFunc(ctx, func() { s.Close() })
	group.Go(func() error {
		defer stop()
		if err := s.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			return fmt.Errorf("serve metrics: %w", err)
		}
		return nil
	})
	return nil
}

// serveReady answers 200 while agents are served.
func (cp *controlPlane) serveReady(w http.ResponseWriter, _ *http.Request) {
	select {
	case <-cp.ready:
		fmt.Fprintln(w, "ok")
	default:
		http.Error(w, "the objects of the mesh are not complete yet", http.StatusServiceUnavailable)
	}
}
