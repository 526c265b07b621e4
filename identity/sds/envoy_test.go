package sds_test

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	secretv3 "github.com/envoyproxy/go-control-plane/envoy/service/secret/v3"
	gospiffe "github.com/spiffe/go-spiffe/v2/spiffeid"
	"google.golang.org/grpc"

	"github.com/heddle-mesh/heddle/identity/agent"
	"github.com/heddle-mesh/heddle/identity/attest"
	"github.com/heddle-mesh/heddle/identity/ca"
	"github.com/heddle-mesh/heddle/identity/channel"
	"github.com/heddle-mesh/heddle/identity/internal/identitytest"
	"github.com/heddle-mesh/heddle/identity/sds"
	"github.com/heddle-mesh/heddle/install/parts/partstest"
)

// bootstrap is an Envoy with one mTLS listener, on a Unix socket so that no port can be
// taken, whose secrets come by SDS. Arguments: listener, SDS variant, SDS socket.
const bootstrap = `
node: {id: test, cluster: test}
static_resources:
  listeners:
  - name: tls
    address: {pipe: {path: %[1]q}}
    filter_chains:
    - transport_socket:
        name: envoy.transport_sockets.tls
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext
          require_client_certificate: true
          common_tls_context:
            tls_certificate_sds_secret_configs: [{name: default, sds_config: &sds {resource_api_version: V3, api_config_source: {api_type: %[2]s, transport_api_version: V3, grpc_services: [{envoy_grpc: {cluster_name: sds}}]}}}]
            combined_validation_context:
              default_validation_context: {}
              validation_context_sds_secret_config: {name: ROOTCA, sds_config: *sds}
      filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: test
          http_filters: [{name: envoy.filters.http.router, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}]
          route_config:
            virtual_hosts: [{name: all, domains: ["*"], routes: [{match: {prefix: "/"}, direct_response: {status: 200, body: {inline_string: ok}}}]}]
  clusters:
  - name: sds
    load_assignment: {cluster_name: sds, endpoints: [{lb_endpoints: [{endpoint: {address: {pipe: {path: %[3]q}}}}]}]}
    typed_extension_protocol_options:
      envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
        "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
        explicit_http_config: {http2_protocol_options: {}}
`

// TestEnvoyRotatesWithoutDroppingAnything rotates every 200 ms, under a load of new
// connections and with one that stays open.
func TestEnvoyRotatesWithoutDroppingAnything(t *testing.T) {
	envoy := partstest.Envoy(t)
	for _, variant := range []string{"DELTA_GRPC", "GRPC"} {
		t.Run(variant, func(t *testing.T) {
			dir, err := os.MkdirTemp("", "sds") // short, for the limit on socket paths
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { os.RemoveAll(dir) })
			cp := identitytest.New(t, dir)
			cp.Start()
			a := startAgent(t, cp, filepath.Join(dir, "agent"))
			serveSDS(t, a, filepath.Join(dir, "sds.sock"))
			listener := filepath.Join(dir, "tls.sock")
			startEnvoy(t, envoy, fmt.Sprintf(bootstrap, listener, variant, filepath.Join(dir, "sds.sock")))
			l := load{t: t, agent: a, socket: listener}
			l.waitUntilUp()
			l.rotateUnderLoad(cp, 15)
		})
	}
}

// TestClockSkew: a control plane whose clock is five minutes behind or ahead gives agents
// and Envoys certificates that they take at once, and replaces them in time. How far is too
// far shows that the clocks matter.
func TestClockSkew(t *testing.T) {
	envoy := partstest.Envoy(t)
	for _, skew := range []time.Duration{-5 * time.Minute, 5 * time.Minute} {
		t.Run(skew.String(), func(t *testing.T) {
			dir, err := os.MkdirTemp("", "sds") // short, for the limit on socket paths
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { os.RemoveAll(dir) })
			cp := identitytest.New(t, dir, clockOf(skew))
			cp.Start()
			a := startAgent(t, cp, filepath.Join(dir, "agent"))
			serveSDS(t, a, filepath.Join(dir, "sds.sock"))
			listener := filepath.Join(dir, "tls.sock")
			startEnvoy(t, envoy, fmt.Sprintf(bootstrap, listener, "DELTA_GRPC", filepath.Join(dir, "sds.sock")))
			l := load{t: t, agent: a, socket: listener}
			l.waitUntilUp()
			if pause := time.Until(a.Status().RenewAt); pause > ca.DefaultConfig().SVIDTTL+skew {
				t.Errorf("the SVID is renewed in %s", pause)
			}
		})
	}
	t.Run("too far", func(t *testing.T) {
		cp := identitytest.New(t, t.TempDir(), clockOf(20*time.Minute))
		cp.Start()
		id := identitytest.ID(t, "api")
		a, err := agent.New(agent.Config{ID: id, Dir: filepath.Join(t.TempDir(), "agent"), Address: "cp", Token: cp.Token(id), DialContext: cp.DialContext})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- a.Run(ctx) }()
		defer func() { cancel(); <-done }()
		eventually, stop := context.WithTimeout(ctx, 5*time.Second)
		defer stop()
		if err := a.Ready(eventually); err == nil || !strings.Contains(err.Error(), "compare the clocks") {
			t.Errorf("with a certificate of the future: %v", err)
		}
	})
}

func clockOf(skew time.Duration) func(*ca.Config) {
	return func(c *ca.Config) { c.Now = func() time.Time { return time.Now().Add(skew) } }
}

func startAgent(t *testing.T, cp *identitytest.ControlPlane, dir string) *agent.Agent {
	t.Helper()
	id := identitytest.ID(t, "api")
	a, err := agent.New(agent.Config{ID: id, Dir: dir, Address: "cp", Token: cp.Token(id), DialContext: cp.DialContext})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- a.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-done })
	patience, stop := context.WithTimeout(ctx, 30*time.Second)
	defer stop()
	if err := a.Ready(patience); err != nil {
		t.Fatal(err)
	}
	return a
}

func serveSDS(t *testing.T, source sds.Source, path string) {
	t.Helper()
	listener, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	s := grpc.NewServer(append(attest.RequireUID(uint32(os.Geteuid())), grpc.Creds(attest.UnixCredentials()))...)
	secretv3.RegisterSecretDiscoveryServiceServer(s, sds.New(source, gospiffe.RequireTrustDomainFromString(identitytest.TrustDomain), nil))
	done := make(chan error, 1)
	go func() { done <- s.Serve(listener) }()
	t.Cleanup(func() { s.Stop(); <-done })
}

func startEnvoy(t *testing.T, path, config string) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "envoy.yaml")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(path, "-c", file, "--disable-hot-restart", "--concurrency", "1", "--log-level", "warning")
	cmd.Stderr = t.Output()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
}

// load is a client of the Envoy that has the same identity.
type load struct {
	t      *testing.T
	agent  *agent.Agent
	socket string
}

// client makes its own connections; seen is called with the serial number of Envoy's
// certificate at every handshake.
func (l load) client(keepAlive bool, seen func(serial string)) *http.Client {
	config, err := channel.Client(l.agent, l.agent, identitytest.ID(l.t, "api"))
	if err != nil {
		l.t.Fatal(err)
	}
	return &http.Client{Transport: &http.Transport{
		DisableKeepAlives: !keepAlive,
		DialTLSContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			conn, err := (&net.Dialer{}).DialContext(ctx, "unix", l.socket)
			if err != nil {
				return nil, err
			}
			c := tls.Client(conn, config)
			if err := c.HandshakeContext(ctx); err != nil {
				conn.Close()
				return nil, err
			}
			seen(c.ConnectionState().PeerCertificates[0].SerialNumber.String())
			return c, nil
		},
	}}
}

func get(ctx context.Context, client *http.Client) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://api/", nil)
	if err != nil {
		return err
	}
	response, err := client.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if body, err := io.ReadAll(response.Body); err != nil || string(body) != "ok" {
		return fmt.Errorf("%s %q %w", response.Status, body, err)
	}
	return nil
}

func (l load) waitUntilUp() {
	l.t.Helper()
	client := l.client(false, func(string) {})
	retry := time.NewTicker(20 * time.Millisecond)
	defer retry.Stop()
	deadline := time.After(30 * time.Second)
	for {
		err := get(l.t.Context(), client)
		if err == nil {
			return
		}
		select {
		case <-retry.C:
		case <-deadline:
			l.t.Fatalf("Envoy does not answer: %v", err)
		}
	}
}

func (l load) rotateUnderLoad(cp *identitytest.ControlPlane, rotations int) {
	ctx, stop := context.WithCancel(l.t.Context())
	defer stop()
	var failed, done atomic.Int64
	var serials sync.Map
	var workers sync.WaitGroup
	work := func(client *http.Client) {
		for ctx.Err() == nil {
			// The request itself is not cut off, so that a failure is Envoy's.
			if err := get(l.t.Context(), client); err != nil {
				failed.Add(1)
				l.t.Error(err)
			}
			done.Add(1)
		}
	}
	for range 2 {
		workers.Go(func() { work(l.client(false, func(serial string) { serials.Store(serial, true) })) })
	}
	kept := 0
	steady := l.client(true, func(string) { kept++ })
	workers.Go(func() {
		tick := time.NewTicker(10 * time.Millisecond)
		defer tick.Stop()
		for ctx.Err() == nil {
			if err := get(l.t.Context(), steady); err != nil {
				failed.Add(1)
				l.t.Error(err)
			}
			<-tick.C
		}
	})
	l.rotate(cp, rotations)
	stop()
	workers.Wait()
	count := 0
	serials.Range(func(_, _ any) bool { count++; return true })
	l.t.Logf("%d rotations, %d new connections, %d failed, %d certificates seen, %d connections for the one that stays", rotations, done.Load(), failed.Load(), count, kept)
	if count < rotations/2 {
		l.t.Errorf("Envoy showed %d different certificates in %d rotations", count, rotations)
	}
	if kept != 1 {
		l.t.Errorf("the connection that stays was made %d times", kept)
	}
	if _, ok := serials.Load(mustSerial(l.t, l.agent)); !ok {
		l.t.Error("Envoy never showed the last certificate")
	}
}

// rotate asks for a new SVID every 200 ms; half-way the bundle gets a second root.
func (l load) rotate(cp *identitytest.ControlPlane, rotations int) {
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for i := range rotations {
		if i == rotations/2 {
			if err := cp.CA.PrepareRoot(); err != nil {
				l.t.Error(err)
			}
		}
		updated := l.agent.Updated()
		l.agent.Renew()
		<-updated
		<-tick.C
	}
}

func mustSerial(t *testing.T, a *agent.Agent) string {
	t.Helper()
	svid, err := a.GetX509SVID()
	if err != nil {
		t.Fatal(err)
	}
	return svid.Certificates[0].SerialNumber.String()
}
