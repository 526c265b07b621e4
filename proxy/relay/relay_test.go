package relay

import (
	"bytes"
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc"
	grpcbackoff "google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/heddle-mesh/heddle/controlplane/xds"
	"github.com/heddle-mesh/heddle/controlplane/xds/xdstest"
)

// controlPlane is a control plane that can be stopped and started.
type controlPlane struct {
	t      testing.TB
	socket string
	cache  *xds.Cache
	server *xds.Server
	stop   func()
	// connect is as which proxy a node is served, from the next start on.
	connect func(*corev3.Node) xds.Proxy
}

func newControlPlane(t testing.TB, dir string) *controlPlane {
	c := &controlPlane{t: t, socket: filepath.Join(dir, "cp.sock"), cache: xds.NewCache(),
		connect: func(n *corev3.Node) xds.Proxy { return xds.Proxy{ID: n.GetId()} }}
	c.start()
	return c
}

func (c *controlPlane) start() {
	c.server = xds.NewServer(xds.Config{Cache: c.cache, Log: testLog(c.t), Connect: func(_ context.Context, n *corev3.Node) (xds.Proxy, error) {
		return c.connect(n), nil
	}})
	c.stop = xdstest.Serve(c.t, c.socket, func(g *grpc.Server) {
		discoveryv3.RegisterAggregatedDiscoveryServiceServer(g, c.server)
	}, grpc.ForceServerCodecV2(xds.Codec()))
}

func (c *controlPlane) set(typ, name string, m proto.Message, needs ...xds.Key) {
	c.t.Helper()
	r, err := xds.NewResource(xds.Key{Type: typ, Name: name}, m, nil, needs...)
	if err != nil {
		c.t.Fatal(err)
	}
	c.cache.Update([]*xds.Resource{r}, nil)
}

func testLog(t testing.TB) *slog.Logger {
	return slog.New(slog.NewTextHandler(t.Output(), nil))
}

func connect(t testing.TB, socket string) *grpc.ClientConn {
	t.Helper()
	conn, err := grpc.NewClient("unix:"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: grpcbackoff.Config{BaseDelay: 20 * time.Millisecond, Multiplier: 1, MaxDelay: 50 * time.Millisecond}}))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

// startRelay runs a relay on a socket; stop is the agent's end.
func startRelay(t testing.TB, upstream, dir, socket string) (r *Relay, stop func()) {
	t.Helper()
	r, err := New(Config{Upstream: connect(t, upstream), Dir: dir, Log: testLog(t)})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		r.Run(ctx)
	}()
	stopServer := xdstest.Serve(t, socket, func(g *grpc.Server) {
		discoveryv3.RegisterAggregatedDiscoveryServiceServer(g, r)
	}, grpc.ForceServerCodecV2(xds.Codec()))
	stop = func() {
		stopServer()
		cancel()
		<-done
	}
	t.Cleanup(stop)
	return r, stop
}

// TestEnvoyWithoutControlPlane is the promise: Envoy and agent come back from their last
// good configuration while the control plane is away, and follow it when it returns.
func TestEnvoyWithoutControlPlane(t *testing.T) {
	dir := xdstest.Dir(t)
	ads, web, state := filepath.Join(dir, "ads.sock"), filepath.Join(dir, "web.sock"), filepath.Join(dir, "state")
	one, two := xdstest.Backend(t, "one"), xdstest.Backend(t, "two")
	cp := newControlPlane(t, dir)
	cp.set(xds.ClusterType, "a", xdstest.Cluster("a", time.Second), xds.Key{Type: xds.EndpointType, Name: "a"})
	cp.set(xds.EndpointType, "a", xdstest.Endpoints("a", one))
	cp.set(xds.ListenerType, "web", xdstest.Listener(t, "web", web, "r"))
	cp.set(xds.RouteType, "r", xdstest.Route("r", "a"))
	answers := func(want string) {
		t.Helper()
		xdstest.Eventually(t, want, func() bool { return xdstest.Get(t, web) == want })
	}

	relay, stopRelay := startRelay(t, cp.socket, state, ads)
	envoy := xdstest.StartEnvoy(t, "w", ads)
	answers("200 one")
	xdstest.Eventually(t, "all remembered", func() bool { return len(relay.Held()) == 4 })
	if !relay.Upstream() || relay.Synced().IsZero() {
		t.Error("the control plane serves, and the relay does not say so")
	}

	cp.stop()
	xdstest.Eventually(t, "loss noticed", func() bool { return !relay.Upstream() })
	answers("200 one")

	// Everything on this host starts anew.
	envoy.Stop()
	stopRelay()
	relay, _ = startRelay(t, cp.socket, state, ads)
	os.Remove(web)
	xdstest.StartEnvoy(t, "w", ads)
	answers("200 one")
	if relay.Upstream() || relay.Synced().IsZero() {
		t.Error("served locally, and the relay does not say so")
	}

	cp.set(xds.EndpointType, "a", xdstest.Endpoints("a", two))
	cp.start()
	answers("200 two")
	if n := cp.server.Stats().Resources.Load(); n != 1 {
		t.Errorf("%d resources sent when the control plane came back, want the changed one", n)
	}
	if !relay.Upstream() {
		t.Error("the control plane is back, and the relay does not say so")
	}
}

// client is a simulated Envoy that runs until the test ends.
func client(t testing.TB, socket string, from *xdstest.Client) *xdstest.Client {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	c, err := xdstest.Open(ctx, connect(t, socket), "w")
	if err != nil {
		t.Fatal(err)
	}
	if from != nil {
		c.Resume(from)
	}
	done := make(chan struct{})
	t.Cleanup(func() {
		cancel()
		<-done
	})
	go func() {
		defer close(done)
		c.Run()
	}()
	if err := c.Subscribe(xds.ClusterType); err != nil {
		t.Fatal(err)
	}
	return c
}

// TestMemoryIsMadeWhole: the agent's memory is lost while Envoy holds everything.
func TestMemoryIsMadeWhole(t *testing.T) {
	dir := xdstest.Dir(t)
	ads, state := filepath.Join(dir, "ads.sock"), filepath.Join(dir, "state")
	cp := newControlPlane(t, dir)
	cp.set(xds.ClusterType, "a", xdstest.Cluster("a", time.Second))
	cp.set(xds.ClusterType, "b", xdstest.Cluster("b", time.Second))
	relay, stop := startRelay(t, cp.socket, state, ads)
	first := client(t, ads, nil)
	if err := first.Wait(t.Context(), xds.ClusterType, func(h map[string]xdstest.Held) bool { return len(h) == 2 }); err != nil {
		t.Fatal(err)
	}
	xdstest.Eventually(t, "remembered", func() bool { return len(relay.Held()) == 2 })
	stop()
	file := filepath.Join(state, goodFile)
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("file %v, %v", info, err)
	}
	if err := os.Truncate(file, 100); err != nil { // half written, too
		t.Fatal(err)
	}
	relay, _ = startRelay(t, cp.socket, state, ads)
	if len(relay.Held()) != 0 {
		t.Fatal("a damaged file was believed")
	}
	client(t, ads, first)
	xdstest.Eventually(t, "remembered again", func() bool { return len(relay.Held()) == 2 })
}

// TestRefusedUpstream: a control plane that turns the proxy away is as good as away.
func TestRefusedUpstream(t *testing.T) {
	dir := xdstest.Dir(t)
	ads, socket := filepath.Join(dir, "ads.sock"), filepath.Join(dir, "cp.sock")
	xdstest.Serve(t, socket, func(g *grpc.Server) {
		discoveryv3.RegisterAggregatedDiscoveryServiceServer(g, discoveryv3.UnimplementedAggregatedDiscoveryServiceServer{})
	})
	relay, _ := startRelay(t, socket, filepath.Join(dir, "state"), ads)
	relay.good.apply(&discoveryv3.DeltaDiscoveryResponse{TypeUrl: xds.RouteType, Resources: []*discoveryv3.Resource{
		{Name: "r", Version: "1", Resource: &anypb.Any{TypeUrl: xds.RouteType}},
	}})
	xdstest.Eventually(t, "served locally", func() bool {
		c, err := xdstest.Open(t.Context(), connect(t, ads), "w")
		if err != nil || c.Subscribe(xds.RouteType, "r") != nil {
			return false
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			c.Run()
			cancel()
		}()
		return c.Wait(ctx, xds.RouteType, func(h map[string]xdstest.Held) bool { return len(h) == 1 }) == nil
	})
}

// TestUnknownAtFirst: a control plane that does not know the workload yet. Agent and Envoy
// come again until they are known, and say so once.
func TestUnknownAtFirst(t *testing.T) {
	dir := xdstest.Dir(t)
	ads, web, socket := filepath.Join(dir, "ads.sock"), filepath.Join(dir, "web.sock"), filepath.Join(dir, "cp.sock")
	cp := &controlPlane{t: t, cache: xds.NewCache()}
	cp.set(xds.ClusterType, "a", xdstest.Cluster("a", time.Second), xds.Key{Type: xds.EndpointType, Name: "a"})
	cp.set(xds.EndpointType, "a", xdstest.Endpoints("a", xdstest.Backend(t, "one")))
	cp.set(xds.ListenerType, "web", xdstest.Listener(t, "web", web, "r"))
	cp.set(xds.RouteType, "r", xdstest.Route("r", "a"))
	var known atomic.Bool
	var envoys, agents atomic.Int32
	server := xds.NewServer(xds.Config{Cache: cp.cache, Log: testLog(t), Connect: func(_ context.Context, n *corev3.Node) (xds.Proxy, error) {
		if known.Load() {
			return xds.Proxy{ID: n.GetId()}, nil
		}
		if n.GetId() == "w" {
			envoys.Add(1)
		} else {
			agents.Add(1)
		}
		return xds.Proxy{}, status.Error(codes.FailedPrecondition, "workload w is not registered")
	}})
	xdstest.Serve(t, socket, func(g *grpc.Server) {
		discoveryv3.RegisterAggregatedDiscoveryServiceServer(g, server)
	}, grpc.ForceServerCodecV2(xds.Codec()))

	relay, _ := startRelay(t, socket, filepath.Join(dir, "state"), ads)
	xdstest.StartEnvoy(t, "w", ads)
	var log bytes.Buffer
	updates := make(chan int, 100)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		Watch(ctx, WatchConfig{
			Upstream: connect(t, socket), Type: xds.RouteType, Node: &corev3.Node{Id: "w/agent"},
			Dir: filepath.Join(dir, "names"), Log: slog.New(slog.NewTextHandler(&log, nil)),
		}, func(m map[string]*anypb.Any) { updates <- len(m) })
	}()
	xdstest.Eventually(t, "both were turned away more than once", func() bool { return envoys.Load() > 1 && agents.Load() > 2 })
	if n := len(relay.Held()); n > 0 || len(updates) > 0 {
		t.Errorf("%d resources and %d updates from nowhere", n, len(updates))
	}
	known.Store(true)
	xdstest.Eventually(t, "served", func() bool { return xdstest.Get(t, web) == "200 one" })
	if n := <-updates; n != 1 {
		t.Errorf("the agent was told of %d routes", n)
	}
	cancel()
	<-done
	if n := strings.Count(log.String(), "is not registered"); n != 1 {
		t.Errorf("told %d times:\n%s", n, log.String())
	}
}

func TestWatch(t *testing.T) {
	dir := xdstest.Dir(t)
	cp := newControlPlane(t, dir)
	cp.set(xds.RouteType, "a", xdstest.Route("a", "x"))
	cp.set(xds.RouteType, "b", xdstest.Route("b", "x"))
	config := WatchConfig{Upstream: connect(t, cp.socket), Type: xds.RouteType, Node: &corev3.Node{Id: "w"}, Dir: filepath.Join(dir, "names"), Log: testLog(t)}
	updates := make(chan map[string]*anypb.Any, 100)
	watch := func() (stop func()) {
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() {
			defer close(done)
			Watch(ctx, config, func(m map[string]*anypb.Any) { updates <- m })
		}()
		return func() { cancel(); <-done }
	}
	next := func(n int) {
		t.Helper()
		select {
		case m := <-updates:
			if len(m) != n {
				t.Fatalf("%d resources, want %d", len(m), n)
			}
		case <-time.After(10 * time.Second):
			t.Fatal("no update")
		}
	}
	stop := watch()
	next(2)
	cp.stop()
	cp.cache.Update(nil, []xds.Key{{Type: xds.RouteType, Name: "b"}})
	cp.start()
	next(1)
	if n := cp.server.Stats().Resources.Load(); n != 0 {
		t.Errorf("%d resources sent again", n)
	}
	stop()
	cp.stop()
	defer watch()()
	next(1) // from disk
}

func FuzzDecodeGood(f *testing.F) {
	g := &good{types: map[string]map[string]resource{xds.RouteType: {"r": {"1", &anypb.Any{TypeUrl: xds.RouteType, Value: []byte("x")}}}}}
	data, _, err := g.encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	f.Add(data[:len(data)-1])
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, data []byte) { decodeGood(data) })
}

// TestSave: what is saved by hand is on the disk at once, beside what Run saves.
func TestSave(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, err := New(Config{Upstream: &grpc.ClientConn{}, Dir: t.TempDir()})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- r.Run(ctx) }()
		for _, name := range []string{"a", "b", "c"} {
			r.good.apply(&discoveryv3.DeltaDiscoveryResponse{TypeUrl: "t", Resources: []*discoveryv3.Resource{{Name: name, Resource: &anypb.Any{}}}})
			synctest.Wait() // Run has saved, or leaves its moment
			r.Save()
			again, err := New(Config{Upstream: &grpc.ClientConn{}, Dir: r.config.Dir})
			if err != nil {
				t.Fatal(err)
			}
			if held := again.Held(); !slices.Equal(held, r.Held()) || held[len(held)-1].Name != name {
				t.Errorf("saved are %v of %v", held, r.Held())
			}
		}
		cancel()
		<-done
	})
}
