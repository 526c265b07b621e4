package main

import (
	"bytes"
	"net/netip"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/heddle-mesh/heddle/proxy/capture"
	"github.com/heddle-mesh/heddle/proxy/probe"
)

// podEnv is the environment of a pod's sidecar.
func podEnv() map[string]string {
	return map[string]string{
		podNameVariable: "api-5d6b", podNamespaceVariable: "shop", podAccountVariable: "api",
		podIPsVariable: "10.1.2.3,fd00::3", podRootsVariable: strings.Repeat("ab", 32) + "," + strings.Repeat("cd", 32),
		podProbesVariable: `{"/probe/app/liveness":{"tcpSocket":{"port":5432}}}`,
	}
}

// buildPodOf parses a command line in an environment, as "heddle sidecar" does.
func buildPodOf(t *testing.T, environment map[string]string, args ...string) (f sidecarFlags, err error) {
	t.Helper()
	for k, v := range environment {
		t.Setenv(k, v)
	}
	f.trustDomain, f.config.RunDir = "mesh.example", t.TempDir()
	f.controlPlane = []string{"heddle-controlplane.heddle-system.svc:15010"}
	f.config, err = f.buildPod(f.config, args)
	return f, err
}

func TestPodEnvironment(t *testing.T) {
	f, err := buildPodOf(t, podEnv())
	fatal(t, err)
	c := f.config
	if err := c.Validate(); err != nil {
		t.Error(err)
	}
	if c.ID.String() != "spiffe://mesh.example/ns/shop/sa/api" || c.Workload != "api-5d6b" || c.Capture != capture.Pod || c.Address != f.controlPlane[0] {
		t.Errorf("%s %s %s %s", c.ID, c.Workload, c.Capture, c.Address)
	}
	if want := []netip.Addr{netip.MustParseAddr("10.1.2.3"), netip.MustParseAddr("fd00::3")}; !cmp.Equal(c.Pod.Addresses, want, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })) {
		t.Errorf("addresses %v", c.Pod.Addresses)
	}
	if len(c.Pod.Roots) != 2 || c.Pod.Roots[1].String() != strings.Repeat("cd", 32) || c.Pod.TokenFile != podTokenFile {
		t.Errorf("%+v", c.Pod)
	}
	want := map[string]probe.Probe{"/probe/app/liveness": {TCPSocket: &probe.TCPSocket{Port: 5432}}}
	if diff := cmp.Diff(want, c.Pod.Probes); diff != "" {
		t.Error(diff)
	}
}

func TestPodEnvironmentRefused(t *testing.T) {
	for name, tc := range map[string]struct{ variable, value, want string }{
		"no pod":        {podNameVariable, "", "HEDDLE_POD_NAME is not set; it is for containers that the injector makes"},
		"no roots":      {podRootsVariable, "", "HEDDLE_ROOTS is not set"},
		"namespace":     {podNamespaceVariable, "Shop!", "identity of HEDDLE_POD_NAMESPACE"},
		"address":       {podIPsVariable, "10.1.2.3,ten", `HEDDLE_POD_IPS: ParseAddr("ten")`},
		"root":          {podRootsVariable, "abcd", `HEDDLE_ROOTS: "abcd" is not the SHA-256 of a root certificate: 64 hexadecimal digits`},
		"probes":        {podProbesVariable, "{", "HEDDLE_PROBES: read probes"},
		"probe by name": {podProbesVariable, `{"/probe/a/liveness":{"tcpSocket":{"port":"db"}}}`, `port "db" is not a number`},
	} {
		t.Run(name, func(t *testing.T) {
			environment := podEnv()
			environment[tc.variable] = tc.value
			if _, err := buildPodOf(t, environment); err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("%v, want %q", err, tc.want)
			}
		})
	}
	if _, err := buildPodOf(t, podEnv(), "./api"); err == nil || !strings.Contains(err.Error(), "the application is another container") {
		t.Errorf("with a command: %v", err)
	}
}

// TestPodFlags: the flags that the injector writes are there.
func TestPodFlags(t *testing.T) {
	var out bytes.Buffer
	c := sidecarCommand(&env{stdin: os.Stdin, stdout: &out, stderr: &out})
	err := c.ParseFlags([]string{"--pod", "--control-plane=cp.heddle-system.svc:15010", "--trust-domain=mesh.example", "--cluster-domain=cluster.local",
		"--log-level=debug", "--concurrency=4", "--collector=otel.tracing:4317"})
	fatal(t, err)
	for flag, want := range map[string]string{"proxy-log-level": "debug", "proxy-concurrency": "4", "otlp": "otel.tracing:4317"} {
		if got := c.Flags().Lookup(flag).Value.String(); got != want {
			t.Errorf("--%s is %q, want %q", flag, got, want)
		}
	}
}

func TestPodNeedsAControlPlane(t *testing.T) {
	f, err := buildPodOf(t, podEnv())
	fatal(t, err)
	f.config.Address = ""
	if err := f.config.Validate(); err == nil || !strings.Contains(err.Error(), "--control-plane HOST:PORT") {
		t.Errorf("%v", err)
	}
}

// TestCaptureApplyRefuses says which flag is wrong before anything is changed.
func TestCaptureApplyRefuses(t *testing.T) {
	for want, flags := range map[string][]string{
		`--exclude-inbound-ports: "http" is not a port from 1 to 65535`:                                      {"--exclude-inbound-ports", "9090,http"},
		`--exclude-outbound-ports: "0" is not a port`:                                                        {"--exclude-outbound-ports", "0"},
		`--exclude-outbound-cidrs: "10.1.2.3" is not a range of addresses, such as 10.1.0.0/16 or fd00::/64`: {"--exclude-outbound-cidrs", "10.1.2.3"},
		`--exclude-inbound-cidrs: "::ffff:10.0.0.0/104" is not a range`:                                      {"--exclude-inbound-cidrs", "::ffff:10.0.0.0/104"},
		`unknown command "now"`: {"now"},
	} {
		var out bytes.Buffer
		code := run(append([]string{"capture", "apply"}, flags...), &env{stdin: os.Stdin, stdout: &out, stderr: &out})
		if code == 0 || !strings.Contains(out.String(), want) {
			t.Errorf("%v: code %d: %s, want %q", flags, code, out.String(), want)
		}
	}
	r, err := captureFlags{inPorts: []string{"9090"}, outPorts: []string{"25"}, outCIDRs: []string{"169.254.169.254/32"}, inCIDRs: []string{"fd00::/8"}}.rules()
	fatal(t, err)
	if r.DNSPort != capture.PodDNSPort || r.ExcludeInPorts[0] != 9090 || r.ExcludeOutPorts[0] != 25 || r.ExcludeOutCIDRs[0].String() != "169.254.169.254/32" || r.ExcludeInCIDRs[0].String() != "fd00::/8" {
		t.Errorf("%+v", r)
	}
}

// TestPodOfIngress: a gateway's proxy is one of a pod, without capture.
func TestPodOfIngress(t *testing.T) {
	environment := podEnv()
	environment[podProbesVariable] = ""
	for k, v := range environment {
		t.Setenv(k, v)
	}
	f := sidecarFlags{trustDomain: "mesh.example", controlPlane: []string{"heddle-controlplane.heddle-system.svc:15010"}, ingress: true}
	f.config.RunDir = t.TempDir()
	config, err := f.buildPod(f.config, nil)
	if err != nil || !config.Pod.Gateway || config.Validate() != nil {
		t.Errorf("%+v, %v", config.Pod, err)
	}
	f.verifyCapture = true
	if _, err := f.buildPod(f.config, nil); err == nil || !strings.Contains(err.Error(), "exclude each other") {
		t.Errorf("with --verify-capture: %v", err)
	}
}
