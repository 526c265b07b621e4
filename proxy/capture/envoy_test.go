package capture

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/heddle-mesh/heddle/install/parts/partstest"
)

// envoyConfig captures with original_dst and passes on to where the client
// wanted to go: outbound as it is, inbound to the app on loopback.
const envoyConfig = `
admin: {address: {pipe: {path: %[1]q}}}
static_resources:
  listeners:
  - name: outbound
    address: {socket_address: {address: "::", port_value: 15001, ipv4_compat: true}}
    listener_filters: [{name: envoy.filters.listener.original_dst, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.listener.original_dst.v3.OriginalDst}}]
    filter_chains: [{filters: [{name: tcp, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy, stat_prefix: out, cluster: original}}]}]
  - name: inbound
    address: {socket_address: {address: "::", port_value: 15006, ipv4_compat: true}}
    listener_filters: [{name: envoy.filters.listener.original_dst, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.listener.original_dst.v3.OriginalDst}}]
    filter_chains: [{filters: [{name: tcp, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy, stat_prefix: in, cluster: app}}]}]
  clusters:
  - {name: original, type: ORIGINAL_DST, lb_policy: CLUSTER_PROVIDED, connect_timeout: 2s%[2]s}
  - name: app
    type: STATIC
    connect_timeout: 2s
    load_assignment: {cluster_name: app, endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: 8080}}}}]}]}
`

// markConfig sets SO_MARK (level SOL_SOCKET 1, option 36) before connecting.
const markConfig = `, upstream_bind_config: {socket_options: [{level: 1, name: 36, int_value: %d, state: STATE_PREBIND}]}`

// Two workloads with real Envoys: a's app calls b's, both families.
func TestEnvoy(t *testing.T) {
	envoy := partstest.Envoy(t)
	eachMode(t, func(t *testing.T, m Mode) {
		n := openNetwork(t, testConfig(t, m))
		a := newNamespace(t, n, NamespaceConfig{Name: "a"})
		b := newNamespace(t, n, NamespaceConfig{Name: "b"})
		serve(t, b, "app", "127.0.0.1:8080")
		for _, ns := range []*Namespace{a, b} {
			startEnvoy(t, ns, envoy)
		}
		for _, addr := range []netip.Addr{b.AddrV4(), b.AddrV6()} {
			// Whatever port is asked for: only b's Envoy knows the app's.
			to := netip.AddrPortFrom(addr, 80).String()
			if got := ask(t, a, to); got != "app 127.0.0.1:8080" {
				t.Errorf("%s: %q", to, got)
			}
		}
	})
}

// startEnvoy runs it as the proxy of ns until the test ends.
func startEnvoy(t *testing.T, ns *Namespace, envoy string) {
	t.Helper()
	dir, err := os.MkdirTemp("", "envoy")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	mark := ""
	if ns.Mode() == Rootless {
		mark = fmt.Sprintf(markConfig, DefaultProxyMark)
	} else if err := os.Chown(dir, DefaultProxyUID, DefaultProxyUID); err != nil {
		t.Fatal(err)
	}
	socket := filepath.Join(dir, "admin.sock")
	var log bytes.Buffer
	cmd, err := ns.Command(t.Context(), ns.ProxyExec(Exec{
		Argv: []string{envoy, "--disable-hot-restart", "--concurrency", "1", "-l", "warn",
			"--config-yaml", fmt.Sprintf(envoyConfig, socket, mark)},
		Stdout: &log, Stderr: &log,
	}))
	if err != nil {
		t.Fatal(err)
	}
	if err := ns.Start(cmd); err != nil {
		t.Fatal(err)
	}
	exited := make(chan struct{})
	go func() { _ = cmd.Wait(); close(exited) }()
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-exited
		if t.Failed() {
			t.Logf("envoy: %s", log.Bytes())
		}
	})
	awaitReady(t, socket, exited)
}

func awaitReady(t *testing.T, socket string, exited <-chan struct{}) {
	t.Helper()
	client := &http.Client{Timeout: time.Second, Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", socket)
		},
	}}
	defer client.CloseIdleConnections()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(30 * time.Second)
	for {
		if resp, err := client.Get("http://envoy/ready"); err == nil {
			_, _ = io.Copy(io.Discard, resp.Body)
			resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return
			}
		}
		select {
		case <-exited:
			t.Fatal("envoy exited")
		case <-deadline:
			t.Fatal("envoy is not ready after 30 s")
		case <-tick.C:
		}
	}
}
