package xds_test

import (
	"context"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/heddle-mesh/heddle/controlplane/xds"
	"github.com/heddle-mesh/heddle/controlplane/xds/xdstest"
)

func accept(_ context.Context, node *corev3.Node) (xds.Proxy, error) {
	return xds.Proxy{ID: node.GetId()}, nil
}

func newServer(t testing.TB, cache *xds.Cache) *xds.Server {
	log := slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug}))
	return xds.NewServer(xds.Config{Cache: cache, Connect: accept, Log: log})
}

func register(s *xds.Server) func(*grpc.Server) {
	return func(g *grpc.Server) { discoveryv3.RegisterAggregatedDiscoveryServiceServer(g, s) }
}

func resource(t testing.TB, typ, name string, m proto.Message, needs ...xds.Key) *xds.Resource {
	t.Helper()
	r, err := xds.NewResource(xds.Key{Type: typ, Name: name}, m, []xds.Origin{{Kind: "Test", Name: name}}, needs...)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func cluster(t testing.TB, name string, timeout time.Duration) *xds.Resource {
	return resource(t, xds.ClusterType, name, xdstest.Cluster(name, timeout), xds.Key{Type: xds.EndpointType, Name: name})
}

func endpoints(t testing.TB, name, socket string) *xds.Resource {
	return resource(t, xds.EndpointType, name, xdstest.Endpoints(name, socket))
}

func route(t testing.TB, name, to string) *xds.Resource {
	return resource(t, xds.RouteType, name, xdstest.Route(name, to), xds.Key{Type: xds.ClusterType, Name: to})
}

func key(typ, name string) xds.Key { return xds.Key{Type: typ, Name: name} }

// settled waits until a proxy is connected and has settled a revision.
func settled(t testing.TB, s *xds.Server, revision uint64) xds.ProxyStatus {
	t.Helper()
	for {
		changed := s.Changed()
		if st := s.Status(); len(st) == 1 && st[0].Settled >= revision && len(st[0].Types) == 4 {
			return st[0]
		}
		select {
		case <-changed:
		case <-time.After(20 * time.Second):
			t.Fatalf("revision %d not settled within 20 seconds: %+v", revision, s.Status())
		}
	}
}

// TestEnvoy is one life with a real Envoy: it starts, follows changes, refuses what is
// bad and keeps the rest, and reconnects without being sent anything again.
func TestEnvoy(t *testing.T) {
	dir := xdstest.Dir(t)
	ads, web := filepath.Join(dir, "ads.sock"), filepath.Join(dir, "web.sock")
	one, two := xdstest.Backend(t, "one"), xdstest.Backend(t, "two")

	cache := xds.NewCache()
	server := newServer(t, cache)
	stop := xdstest.Serve(t, ads, register(server), grpc.ForceServerCodecV2(xds.Codec()))
	rev := cache.Update([]*xds.Resource{
		cluster(t, "a", time.Second), endpoints(t, "a", one),
		resource(t, xds.ListenerType, "web", xdstest.Listener(t, "web", web, "r")), route(t, "r", "a"),
	}, nil)
	envoy := xdstest.StartEnvoy(t, "envoy-1", ads)
	xdstest.Eventually(t, "first answer", func() bool { return xdstest.Get(t, web) == "200 one" })
	if st := settled(t, server, rev); len(st.Refused) != 0 || st.Node != "envoy-1" {
		t.Fatalf("status %+v", st)
	}

	// A new cluster, and the route to it, in one step; the old cluster goes.
	rev = cache.Update([]*xds.Resource{cluster(t, "b", time.Second), endpoints(t, "b", two), route(t, "r", "b")},
		[]xds.Key{key(xds.ClusterType, "a"), key(xds.EndpointType, "a")})
	settled(t, server, rev)
	if got := xdstest.Get(t, web); got != "200 two" {
		t.Fatalf("after the change: %s", got)
	}
	if reach := server.Interested(key(xds.ClusterType, "a")); reach.Total != 0 {
		t.Fatalf("removed cluster: %+v", reach)
	}

	// The cluster is changed: its endpoints must follow, or Envoy waits for them.
	rev = cache.Update([]*xds.Resource{cluster(t, "b", 2*time.Second)}, nil)
	settled(t, server, rev)
	xdstest.Eventually(t, "changed cluster is warm", func() bool {
		return envoy.Stat("cluster_manager.warming_clusters") == "0" && strings.Contains(envoy.Admin("/config_dump"), `"connect_timeout": "2s"`)
	})

	// A control plane that starts anew sends nothing that Envoy has already.
	stop()
	server = newServer(t, cache)
	xdstest.Serve(t, ads, register(server), grpc.ForceServerCodecV2(xds.Codec()))
	settled(t, server, rev)
	if n := server.Stats().Resources.Load(); n != 0 {
		t.Errorf("%d resources sent again on a reconnect", n)
	}
	rev = cache.Update([]*xds.Resource{endpoints(t, "b", one)}, nil)
	settled(t, server, rev)
	if got := xdstest.Get(t, web); got != "200 one" {
		t.Fatalf("after an update after the reconnect: %s", got)
	}
	if n := server.Stats().Resources.Load(); n != 1 {
		t.Errorf("%d resources sent for one change", n)
	}
	settled(t, server, cache.Update([]*xds.Resource{endpoints(t, "b", two)}, nil))

	refusals(t, cache, server, dir, web, two)
}

// refusals checks that what is bad is found, whatever Envoy says about it.
func refusals(t *testing.T, cache *xds.Cache, server *xds.Server, dir, web, two string) {
	t.Helper()
	bad, good := filepath.Join(dir, "bad.sock"), filepath.Join(dir, "good.sock")
	check := func(rev uint64, want ...string) {
		t.Helper()
		st := settled(t, server, rev)
		var got []string
		for _, r := range st.Refused {
			got = append(got, r.Key.String())
			t.Logf("refused %s: %.200s", r.Key, r.Error)
		}
		if !slices.Equal(got, want) {
			t.Fatalf("refused %q, want %q", got, want)
		}
		if got := xdstest.Get(t, web); got != "200 two" {
			t.Fatalf("while something is refused: %s", got)
		}
	}

	// A listener that Envoy names, beside a good one.
	rev := cache.Update([]*xds.Resource{
		resource(t, xds.ListenerType, "bad", xdstest.BadListener(t, "bad", bad)),
		resource(t, xds.ListenerType, "good", xdstest.Listener(t, "good", good, "r")),
	}, nil)
	check(rev, "Listener bad")
	if got := xdstest.Get(t, good); got != "200 two" {
		t.Fatalf("the good listener: %s", got)
	}
	reach := server.Interested(key(xds.ListenerType, "bad"))
	if reach.Total != 1 || reach.Live != 0 || len(reach.Refused) != 1 {
		t.Fatalf("reach of the bad listener: %+v", reach)
	}

	// A cluster that does not validate: Envoy refuses the whole response.
	invalid := xdstest.Cluster("invalid", -time.Second)
	rev = cache.Update([]*xds.Resource{
		resource(t, xds.ClusterType, "invalid", invalid),
		cluster(t, "c", time.Second), endpoints(t, "c", web), cluster(t, "d", time.Second), endpoints(t, "d", web),
	}, nil)
	check(rev, "Cluster invalid", "Listener bad")
	for _, name := range []string{"c", "d"} {
		if reach := server.Interested(key(xds.ClusterType, name)); reach.Live != 1 {
			t.Fatalf("cluster %s beside the invalid one: %+v", name, reach)
		}
	}

	// A bad route keeps the last good one, and its cluster.
	badRoute := xdstest.Route("r", "c")
	badRoute.VirtualHosts = append(badRoute.VirtualHosts, badRoute.VirtualHosts[0])
	rev = cache.Update([]*xds.Resource{resource(t, xds.RouteType, "r", badRoute)}, []xds.Key{key(xds.ClusterType, "b"), key(xds.EndpointType, "b")})
	check(rev, "Cluster invalid", "Listener bad", "RouteConfiguration r")

	// All is put right.
	rev = cache.Update([]*xds.Resource{cluster(t, "b", 2*time.Second), endpoints(t, "b", two), route(t, "r", "b")},
		[]xds.Key{key(xds.ClusterType, "invalid"), key(xds.ListenerType, "bad")})
	check(rev)
}
