package pod

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/heddle-mesh/heddle/identity/spiffeid"
	"github.com/heddle-mesh/heddle/proxy/capture"
	"github.com/heddle-mesh/heddle/proxy/sidecar"
)

// secret is in every token, to be looked for in logs.
const secret = "not-to-be-told"

// pod is one pod: a network namespace, and the containers that the injector adds.
type pod struct {
	t        *testing.T
	name, id string // id is its service account
	ns       *capture.Namespace
	ips      []netip.Addr
	dir      string // of its volumes
	token    string // path
	resolver netip.Addr

	proxy *exec.Cmd // the container heddle-proxy
	ended chan struct{}
	log   buffer
}

// families are the IP versions that a cluster has.
type families string

const (
	dual  families = "dual stack"
	only4 families = "IPv4"
	only6 families = "IPv6"
)

// strip takes from a namespace what a pod's does not have: what the init container is to
// bring, and the other family.
func (f families) strip(t *testing.T, ns *capture.Namespace) {
	t.Helper()
	if err := ns.RemoveRules(); err != nil {
		t.Fatal(err)
	}
	script := "ip -6 address del ::6/128 dev lo"
	switch f {
	case only4:
		script += "; echo 1 > /proc/sys/net/ipv6/conf/all/disable_ipv6"
	case only6:
		script += "; ip -4 address flush dev eth0"
	}
	if out, err := exec.Command("nsenter", "--net="+ns.Path(), "sh", "-ec", script).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v: %s", script, err, out)
	}
}

// of gives the addresses of the cluster's families.
func (f families) of(v4, v6 netip.Addr) []netip.Addr {
	switch f {
	case only4:
		return []netip.Addr{v4}
	case only6:
		return []netip.Addr{v6}
	}
	return []netip.Addr{v4, v6}
}

// newPod makes the namespace and the volumes of a pod, and runs the init container.
func newPod(t *testing.T, n *capture.Network, f families, p *plane, name, account string, captureFlags ...string) *pod {
	t.Helper()
	ns, err := n.NewNamespace(t.Context(), capture.NamespaceConfig{Name: name, Named: true, Rules: capture.PodRules()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ns.Close() })
	f.strip(t, ns)
	out := &pod{t: t, name: name, id: account, ns: ns, ips: f.of(ns.AddrV4(), ns.AddrV6()), resolver: f.of(n.GatewayV4(), n.GatewayV6())[0]}
	out.makeVolumes(p)
	for range 2 { // as when the node starts the pod's containers anew
		out.capture(captureFlags...)
	}
	return out
}

// makeVolumes makes a run folder that anybody may write to, as an emptyDir is, and a token
// that the sidecar's group may read, as a projected one is.
func (p *pod) makeVolumes(cp *plane) {
	dir, err := os.MkdirTemp("", "pod") // short: paths of sockets end at 107 bytes
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() { os.RemoveAll(dir) })
	p.dir, p.token = filepath.Join(dir, "run"), filepath.Join(dir, "token")
	token := secret + "-" + p.name
	for _, err := range []error{
		os.Chmod(dir, 0o711), os.Mkdir(p.dir, 0o777), os.Chmod(p.dir, 0o777),
		os.WriteFile(p.token, []byte(token), 0o640), os.Chown(p.token, 0, capture.DefaultProxyUID),
	} {
		if err != nil {
			p.t.Fatal(err)
		}
	}
	id, err := spiffeid.New(trustDomain, "default", p.id)
	if err != nil {
		p.t.Fatal(err)
	}
	cp.mu.Lock()
	defer cp.mu.Unlock()
	cp.tokens[token] = id
}

// capture is the init container: uid 0 with CAP_NET_ADMIN alone.
func (p *pod) capture(flags ...string) {
	p.t.Helper()
	args := append([]string{"--net=" + p.ns.Path(), "setpriv", "--bounding-set=-all,+net_admin", "--inh-caps=-all", "--no-new-privs",
		os.Getenv("HEDDLE_POD_TEST_HEDDLE"), "capture", "apply"}, flags...)
	cmd := exec.Command("nsenter", args...)
	cmd.Env, cmd.Dir = []string{"TMPDIR=/nonexistent"}, "/"
	if out, err := cmd.CombinedOutput(); err != nil {
		p.t.Fatalf("capture apply: %v: %s", err, out)
	}
}

// start starts the container heddle-proxy: uid 1337, no capabilities, nowhere to write but
// in its volume.
func (p *pod) start(cp *plane, env ...string) { p.startWith(cp, nil, env...) }

// startWith is start with more flags.
func (p *pod) startWith(cp *plane, flags []string, env ...string) {
	p.t.Helper()
	var ips []string
	for _, ip := range p.ips {
		ips = append(ips, ip.String())
	}
	cmd, err := p.ns.Command(context.WithoutCancel(p.t.Context()), p.ns.ProxyExec(capture.Exec{
		Argv: append([]string{os.Getenv("HEDDLE_POD_TEST_HEDDLE"), "sidecar", "--pod", "--control-plane", "heddle-controlplane.heddle-system.svc:15010",
			"--trust-domain", trustDomain, "--cluster-domain", "cluster.local", "--log-level", "error", "--concurrency", "1",
			"--run", p.dir, "--token-file", p.token}, flags...),
		Dir: "/",
		Env: append([]string{
			"TMPDIR=/nonexistent", "HEDDLE_ENVOY=" + os.Getenv("HEDDLE_ENVOY"),
			"HEDDLE_POD_NAME=" + p.name, "HEDDLE_POD_NAMESPACE=default", "HEDDLE_NODE_NAME=node", "HEDDLE_SERVICE_ACCOUNT=" + p.id,
			"HEDDLE_POD_IPS=" + strings.Join(ips, ","), "HEDDLE_ROOTS=" + strings.Repeat("0", 64) + "," + cp.roots,
		}, env...),
		ResolvConf: []byte("search default.svc.cluster.local svc.cluster.local cluster.local\nnameserver " + p.resolver.String() + "\noptions ndots:5\n"),
		Stdout:     &p.log, Stderr: &p.log,
	}))
	if err != nil {
		p.t.Fatal(err)
	}
	if err := p.ns.Start(cmd); err != nil {
		p.t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() { _ = cmd.Wait(); close(ended) }()
	p.proxy, p.ended = cmd, ended
	p.t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-ended
		if p.t.Failed() {
			p.t.Logf("%s said:\n%s", p.name, p.log.String())
		}
	})
}

// kill ends the container without a word.
func (p *pod) kill() {
	_ = p.proxy.Process.Kill()
	<-p.ended
}

// terminate asks the container to end, and gives its exit code.
func (p *pod) terminate() func() int {
	_ = p.proxy.Process.Signal(syscall.SIGTERM)
	return func() int { <-p.ended; return p.proxy.ProcessState.ExitCode() }
}

// awaitReady waits as the kubelet does.
func (p *pod) awaitReady() {
	p.t.Helper()
	await(p.t, p.name+" is ready", func() error {
		code, body := p.kubelet("/ready")
		return want(fmt.Sprint(code, " ", body), "200 ready")
	})
}

// status asks the agent on its status socket.
func (p *pod) status() (out sidecar.Status) {
	p.t.Helper()
	client := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", filepath.Join(p.dir, "status.sock"))
	}, DisableKeepAlives: true}}
	resp, err := client.Get("http://agent/status")
	if err != nil {
		p.t.Fatal(err)
	}
	defer resp.Body.Close()
	if err := json.NewDecoder(resp.Body).Decode(&out); err != nil {
		p.t.Fatal(err)
	}
	return out
}
