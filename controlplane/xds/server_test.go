package xds_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"

	"github.com/heddle-mesh/heddle/controlplane/xds"
	"github.com/heddle-mesh/heddle/controlplane/xds/xdstest"
)

// serve serves on a listener until the test ends.
func serve(t testing.TB, l net.Listener, s *xds.Server) {
	t.Helper()
	g := grpc.NewServer(grpc.ForceServerCodecV2(xds.Codec()))
	register(s)(g)
	done := make(chan struct{})
	go func() {
		defer close(done)
		g.Serve(l)
	}()
	t.Cleanup(func() {
		g.Stop()
		<-done
	})
}

func dial(t testing.TB, target string, opts ...grpc.DialOption) *grpc.ClientConn {
	t.Helper()
	conn, err := grpc.NewClient("passthrough:///"+target, append(opts, grpc.WithTransportCredentials(insecure.NewCredentials()))...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

func inMemory(t testing.TB, s *xds.Server) *grpc.ClientConn {
	l := bufconn.Listen(1 << 20)
	serve(t, l, s)
	return dial(t, "test", grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return l.DialContext(ctx) }))
}

// run runs a client until the test ends.
func run(t testing.TB, c *xdstest.Client) {
	done := make(chan struct{})
	t.Cleanup(func() { <-done })
	go func() {
		defer close(done)
		c.Run()
	}()
}

func TestServer(t *testing.T) {
	cache := xds.NewCache()
	cache.Update([]*xds.Resource{endpoints(t, "a", "/1"), endpoints(t, "b", "/1")}, nil)
	server := newServer(t, cache)
	conn := inMemory(t, server)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	t.Cleanup(cancel)

	var clients []*xdstest.Client
	for i := range 3 {
		c, err := xdstest.Open(ctx, conn, fmt.Sprintf("p%d", i))
		if err != nil {
			t.Fatal(err)
		}
		if i == 2 {
			c.Judge = func(r *discoveryv3.DeltaDiscoveryResponse) error {
				if r.SystemVersionInfo == "2" {
					return errors.New("not to my taste")
				}
				return nil
			}
		}
		run(t, c)
		if err := c.Subscribe(xds.EndpointType, "a"); err != nil {
			t.Fatal(err)
		}
		clients = append(clients, c)
	}
	reaches := func(total, live, refused int) {
		t.Helper()
		for {
			changed := server.Changed()
			r := server.Interested(key(xds.EndpointType, "a"))
			if r.Total == total && r.Live == live && len(r.Refused) == refused {
				return
			}
			select {
			case <-changed:
			case <-ctx.Done():
				t.Fatalf("reach %+v, want %d, %d, %d", r, total, live, refused)
			}
		}
	}
	reaches(3, 3, 0)
	cache.Update([]*xds.Resource{endpoints(t, "a", "/2")}, nil)
	reaches(3, 2, 1)
	st := server.Status()
	if len(st) != 3 || st[2].Proxy.ID != "p2" || len(st[2].Refused) != 1 || st[2].Refused[0].Error != "not to my taste" || st[2].Settled != 2 {
		t.Errorf("status %+v", st)
	}
	cache.Update([]*xds.Resource{endpoints(t, "a", "/3")}, nil)
	reaches(3, 3, 0)
	if server.Interested(key(xds.EndpointType, "b")).Total != 0 {
		t.Error("somebody is interested in b")
	}
	cache.Update(nil, []xds.Key{key(xds.EndpointType, "a")})
	reaches(0, 0, 0)
	if n := clients[0].Seen(); n != 4 {
		t.Errorf("%d responses", n)
	}
	cancel()
}

// TestSharing has three proxies on demand, of which two share what they use: what one of them
// asks for the other gets, too, and the third does not.
func TestSharing(t *testing.T) {
	cache := xds.NewCache()
	var set []*xds.Resource
	for _, name := range []string{"a", "b"} {
		r, err := xds.NewResource(key(xds.ClusterType, name), xdstest.Cluster(name, time.Second), nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Groups = []string{"service/" + name}
		set = append(set, r)
	}
	cache.Update(set, nil)
	asked := make(chan string, 10)
	var server *xds.Server
	server = xds.NewServer(xds.Config{
		Cache: cache,
		Connect: func(_ context.Context, n *corev3.Node) (xds.Proxy, error) {
			return xds.Proxy{ID: n.GetId(), OnDemand: true, Sharing: n.GetId()[:3]}, nil
		},
		Asked: func(p xds.Proxy, groups []string) {
			server.Join(p.Sharing, groups...)
			asked <- fmt.Sprint(p.ID, groups)
		},
	})
	conn := inMemory(t, server)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	t.Cleanup(cancel)
	clients := map[string]*xdstest.Client{}
	for _, id := range []string{"web-0", "web-1", "api-0"} {
		c, err := xdstest.Open(ctx, conn, id)
		if err != nil {
			t.Fatal(err)
		}
		run(t, c)
		if err := c.Subscribe(xds.ClusterType); err != nil {
			t.Fatal(err)
		}
		clients[id] = c
	}
	holds := func(id string, names ...string) {
		t.Helper()
		err := clients[id].Wait(ctx, xds.ClusterType, func(held map[string]xdstest.Held) bool {
			for _, name := range names {
				if _, ok := held[name]; !ok {
					return false
				}
			}
			return len(held) == len(names)
		})
		if err != nil {
			t.Errorf("%s: %v", id, err)
		}
	}
	for {
		if changed := server.Changed(); len(server.Status()) < 3 {
			<-changed
			continue
		}
		break
	}
	if err := clients["web-0"].Subscribe(xds.ClusterType, "a"); err != nil {
		t.Fatal(err)
	}
	if got := <-asked; got != "web-0[service/a]" {
		t.Errorf("asked by %s", got)
	}
	holds("web-0", "a")
	holds("web-1", "a")
	if err := clients["api-0"].Subscribe(xds.ClusterType, "b"); err != nil {
		t.Fatal(err)
	}
	if got := <-asked; got != "api-0[service/b]" {
		t.Errorf("asked by %s", got)
	}
	holds("api-0", "b")
	holds("web-1", "a")
	server.Leave("web", "service/a")
	holds("web-0")
	holds("web-1")
	holds("api-0", "b")
	cancel()
}

func TestServerRefuses(t *testing.T) {
	for _, tc := range []struct {
		name string
		err  error
		req  *discoveryv3.DeltaDiscoveryRequest
		want codes.Code
	}{
		{"stranger", errors.New("no SVID"), &discoveryv3.DeltaDiscoveryRequest{TypeUrl: xds.ClusterType}, codes.PermissionDenied},
		{"own status", status.Error(codes.Unauthenticated, "no SVID"), &discoveryv3.DeltaDiscoveryRequest{TypeUrl: xds.ClusterType}, codes.Unauthenticated},
		{"no type", nil, &discoveryv3.DeltaDiscoveryRequest{}, codes.InvalidArgument},
	} {
		t.Run(tc.name, func(t *testing.T) {
			server := xds.NewServer(xds.Config{Cache: xds.NewCache(), Connect: func(context.Context, *corev3.Node) (xds.Proxy, error) {
				return xds.Proxy{}, tc.err
			}})
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			defer cancel()
			stream, err := discoveryv3.NewAggregatedDiscoveryServiceClient(inMemory(t, server)).DeltaAggregatedResources(ctx)
			if err != nil {
				t.Fatal(err)
			}
			if err := stream.Send(tc.req); err != nil {
				t.Fatal(err)
			}
			if _, err := stream.Recv(); status.Code(err) != tc.want {
				t.Errorf("%v, want %v", err, tc.want)
			}
		})
	}
}

// BenchmarkPush is one change of endpoints to n proxies, each with a TCP connection of its
// own, to the last ACK. CPU
// is of server and simulated clients together.
func BenchmarkPush(b *testing.B) {
	for _, n := range []int{1, 200} {
		b.Run(fmt.Sprintf("proxies=%d", n), func(b *testing.B) { benchmarkPush(b, n) })
	}
}

func benchmarkPush(b *testing.B, n int) {
	cache := xds.NewCache()
	versions := []*xds.Resource{endpoints(b, "a", "/1"), endpoints(b, "a", "/2")}
	cache.Update(versions[:1], nil)
	var mu sync.Mutex
	at := make(map[string]uint64)
	var target atomic.Uint64
	left := make(chan struct{}, n)
	server := xds.NewServer(xds.Config{Cache: cache, Connect: accept, Settled: func(id string, rev uint64) {
		mu.Lock()
		defer mu.Unlock()
		if old := at[id]; old < rev {
			at[id] = rev
			if rev == target.Load() {
				left <- struct{}{}
			}
		}
	}})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(b.Context())
	b.Cleanup(cancel)
	serve(b, l, server)
	target.Store(1)
	for i := range n {
		c, err := xdstest.Open(ctx, dial(b, l.Addr().String()), fmt.Sprint(i))
		if err != nil {
			b.Fatal(err)
		}
		run(b, c)
		b.Cleanup(cancel) // before the wait for the client's end
		if err := c.Subscribe(xds.EndpointType, "a"); err != nil {
			b.Fatal(err)
		}
	}
	for range n {
		<-left
	}
	bytes, cpu := server.Stats().Bytes.Load(), cpuTime()
	b.ResetTimer()
	for i := range b.N {
		target.Store(uint64(i + 2))
		cache.Update(versions[(i+1)%2:][:1], nil)
		for range n {
			<-left
		}
	}
	b.StopTimer()
	pushes := float64(b.N * n)
	b.ReportMetric(float64(server.Stats().Bytes.Load()-bytes)/pushes, "bytes/push")
	b.ReportMetric(float64((cpuTime()-cpu).Microseconds())/pushes, "cpu-us/push")
}

// cpuTime is the processor time of this process so far.
func cpuTime() time.Duration {
	var r syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &r); err != nil {
		return 0
	}
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}
