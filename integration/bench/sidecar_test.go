package bench

import (
	"slices"
	"strconv"
	"testing"

	"github.com/heddle-mesh/heddle/proxy/capture"
)

const (
	turns  = 5
	length = "2s" // of one turn
)

const sidecarServices = `
services:
  web:
    ports: [8080]
    command: [BENCH, serve, --http, ":8080"]
  api:
    ports: [8080, 9090]
    command: [BENCH, serve, --http, ":8080", --http-direct, ":15080", --tcp, ":9090", --tcp-direct, ":15081"]
`

// sidecarObjects have what the target in NUMBERS names: an authorization policy. Mutual
// TLS, metrics, access logs and traces of 1 % of the requests are on by default.
const sidecarObjects = `
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web}, ports: [{name: http, port: 80, targetPort: 8080}]}
---
apiVersion: v1
kind: Service
metadata: {name: api}
spec: {selector: {app: api}, ports: [{name: http, port: 80, targetPort: 8080}, {name: tcp, port: 81, targetPort: 9090}]}
---
apiVersion: v1
kind: Service
metadata: {name: each}
spec: {selector: {app: api}, clusterIP: None, ports: [{name: http, port: 80, targetPort: 8080}]}
---
apiVersion: mesh.heddle.dev/v1alpha1
kind: AuthorizationPolicy
metadata: {name: callers}
spec:
  targetRefs: [{kind: Service, name: api}]
  action: Allow
  rules: [{from: [{serviceAccount: web}]}]
`

// BenchmarkSidecars calls a server by way of two sidecars, and the same server from the
// same namespace without: capture leaves the proxy's user and the sidecars' own ports
// alone. The processes come first, as they are before any load.
func BenchmarkSidecars(b *testing.B) {
	m := startMesh(b, sidecarServices, sidecarObjects)
	pids := m.PIDs()
	memory(b, "idle", pids, "controlplane", "web-0", "web-0/envoy")
	envoys := []int{pids["web-0/envoy"], pids["api-0/envoy"]}
	for _, c := range []struct {
		name, mesh, direct string
		flags              []string
	}{
		{"http/500rps", "api:80", "each:15080", []string{"--rate", "500"}},
		{"http/1000rps", "api:80", "each:15080", []string{"--rate", "1000"}},
		{"http/16conns", "api:80", "each:15080", nil},
		{"tcp/1000rps", "api:81", "each:15081", []string{"--tcp", "--rate", "1000"}},
		{"tcp/16conns", "api:81", "each:15081", []string{"--tcp"}},
	} {
		b.Run(c.name, func(b *testing.B) {
			flags := append([]string{"--for", length}, c.flags...)
			direct := append([]string{"--to", c.direct, "--uid", strconv.Itoa(capture.DefaultProxyUID)}, flags...)
			mesh := append([]string{"--to", c.mesh}, flags...)
			compare(b, slices.Contains(c.flags, "--rate"), [2]contender{
				{"direct", func() (loadResult, float64) { return m.Load(b, "web-0", nil, direct...) }},
				{"mesh", func() (loadResult, float64) { return m.Load(b, "web-0", envoys, mesh...) }},
			})
		})
	}
	memory(b, "loaded", pids, "web-0/envoy", "api-0/envoy")
}

// memory reports what processes take: web-0 is a sidecar's agent, web-0/envoy its Envoy.
func memory(b *testing.B, when string, pids map[string]int, names ...string) {
	for _, name := range names {
		b.Run(when+"/"+name, func(b *testing.B) {
			resident, anonymous := memoryOf(b, pids[name])
			report(b, map[string]float64{"MiB": resident, "MiB-anonymous": anonymous})
		})
	}
}
