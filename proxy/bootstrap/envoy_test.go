package bootstrap_test

import (
	"context"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	runtimev3 "github.com/envoyproxy/go-control-plane/envoy/service/runtime/v3"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/heddle-mesh/heddle/install/parts/partstest"
	"github.com/heddle-mesh/heddle/proxy/bootstrap"
	"github.com/heddle-mesh/heddle/proxy/envoy"
)

// An agent answers ADS: some clusters, no listeners, each once released.
type agent struct {
	discoveryv3.UnimplementedAggregatedDiscoveryServiceServer
	nodes   chan string
	release chan struct{}
}

func (a *agent) DeltaAggregatedResources(s discoveryv3.AggregatedDiscoveryService_DeltaAggregatedResourcesServer) error {
	for {
		req, err := s.Recv()
		if err != nil {
			return err
		}
		if id := req.GetNode().GetId(); id != "" {
			a.nodes <- id + " in " + req.Node.Locality.GetZone() + " of " + req.Node.Cluster
		}
		if req.ResponseNonce != "" {
			continue // an ACK
		}
		<-a.release
		resp := &discoveryv3.DeltaDiscoveryResponse{TypeUrl: req.TypeUrl, Nonce: "1"}
		if strings.HasSuffix(req.TypeUrl, ".Runtime") {
			any, err := anypb.New(&runtimev3.Runtime{Name: bootstrap.MeshLayer})
			if err != nil {
				return err
			}
			resp.Resources = []*discoveryv3.Resource{{Name: bootstrap.MeshLayer, Version: "1", Resource: any}}
		}
		if strings.HasSuffix(req.TypeUrl, ".Cluster") {
			for _, name := range []string{"api.default:80", "dst|10.68.0.7:80", "dst|[fd68::7]:80", "app|8080"} {
				any, err := anypb.New(&clusterv3.Cluster{Name: name, ConnectTimeout: durationpb.New(1e9)})
				if err != nil {
					return err
				}
				resp.Resources = append(resp.Resources, &discoveryv3.Resource{Name: name, Version: "1", Resource: any})
			}
		}
		if err := s.Send(resp); err != nil {
			return err
		}
	}
}

// TestRealEnvoy starts an Envoy with a bootstrap: it introduces itself on the
// agent's socket, is not ready before it has its first configuration, keeps
// the statistics that we chose, and names clusters in them whole.
func TestRealEnvoy(t *testing.T) {
	t.Run("unmarked", func(t *testing.T) { testEnvoy(t, 0) })
	t.Run("marked", func(t *testing.T) {
		if !mayMark(t) {
			t.Skip("this user may not set SO_MARK")
		}
		testEnvoy(t, 0x4d65)
	})
}

// mayMark reports whether this process has CAP_NET_ADMIN.
func mayMark(t *testing.T) bool {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_MARK, 1) == nil
}

func testEnvoy(t *testing.T, mark uint32) {
	dir := t.TempDir()
	c := bootstrap.DefaultConfig()
	c.ID, c.Cluster, c.Zone, c.Mark = "api-1.default", "api.default", "north-b", mark
	c.AdminSocket, c.AgentSocket = filepath.Join(dir, "admin.sock"), filepath.Join(dir, "envoy.sock")
	a := &agent{nodes: make(chan string, 10), release: make(chan struct{})}
	l, err := net.Listen("unix", c.AgentSocket)
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer()
	discoveryv3.RegisterAggregatedDiscoveryServiceServer(server, a)
	go server.Serve(l)
	defer server.Stop()

	file := filepath.Join(dir, "envoy.json")
	if err := bootstrap.Write(c, file, -1); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(partstest.Envoy(t), bootstrap.Command(c, file)...)
	cmd.Stderr = t.Output()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		cmd.Process.Kill()
		cmd.Wait()
	}()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	select {
	case got := <-a.nodes:
		if want := "api-1.default in north-b of api.default"; got != want {
			t.Errorf("Envoy is %s, want %s", got, want)
		}
	case <-ctx.Done():
		t.Fatal("Envoy does not come to the agent")
	}
	admin := envoy.NewAdmin(c.AdminSocket)
	if err := admin.Ready(ctx); err == nil {
		t.Error("Envoy is ready without configuration")
	}
	close(a.release)
	for admin.Ready(ctx) != nil {
		select {
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
			t.Fatal(admin.Ready(t.Context()))
		}
	}
	if info, err := os.Stat(c.AdminSocket); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("admin socket: %v, %v", info, err)
	}
	checkStats(ctx, t, admin)
}

func checkStats(ctx context.Context, t *testing.T, admin *envoy.Admin) {
	t.Helper()
	text, err := admin.Prometheus(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		`envoy_cluster_membership_total{envoy_cluster_name="api.default_80"} 0`,
		`envoy_cluster_membership_total{envoy_cluster_name="dst|10.68.0.7_80"} 0`,
		`envoy_cluster_membership_total{envoy_cluster_name="dst|[fd68__7]_80"} 0`,
		`envoy_cluster_membership_total{envoy_cluster_name="app|8080"} 0`,
		`envoy_cluster_manager_cds_update_success{} 1`,
		`envoy_server_live{} 1`,
	} {
		if !strings.Contains(string(text), want+"\n") {
			t.Errorf("the statistics lack %s", want)
		}
	}
	for line := range strings.Lines(string(text)) {
		if strings.Contains(line, "circuit_breakers") || strings.Contains(line, "cluster_name=\"dst|10\"") {
			t.Errorf("not wanted: %s", line)
		}
	}
	if t.Failed() {
		t.Logf("%s", text)
	}
}
