package pod

import (
	"net/netip"
	"testing"

	"github.com/heddle-mesh/heddle/controlplane/mesh"
	"github.com/heddle-mesh/heddle/identity/spiffeid"
	"github.com/heddle-mesh/heddle/proxy/capture"
)

// probes are those of pod api's application, as the injector writes them.
const probes = `{
	"/probe/app/liveness":   {"httpGet": {"path": "/healthz", "port": 8080, "scheme": "HTTP"}, "timeoutSeconds": 5},
	"/probe/app/startup":    {"httpGet": {"path": "/healthz", "port": 8443, "scheme": "HTTPS"}, "timeoutSeconds": 5},
	"/probe/app/readiness":  {"grpc": {"port": 9000, "service": ""}, "timeoutSeconds": 5},
	"/probe/tcp/liveness":   {"tcpSocket": {"port": 8080}, "timeoutSeconds": 5},
	"/probe/ill/liveness":   {"httpGet": {"path": "/ill", "port": "8080"}, "timeoutSeconds": 5},
	"/probe/gone/liveness":  {"tcpSocket": {"port": 1}},
	"/probe/other/liveness": {"httpGet": {"path": "/", "port": 8080, "host": "127.0.0.1"}}
}`

// world is a node with two pods: web, which calls, and api, which is called.
type world struct {
	*testing.T
	families
	plane    *plane
	web, api *pod
	app      *app
	vips     []netip.Addr // of service api
}

func newWorld(t *testing.T, f families) *world {
	config := capture.DefaultNetworkConfig()
	config.StateDir, config.NamedDir, config.Log = t.TempDir(), t.TempDir(), logTo(t, "network")
	network, err := capture.OpenNetwork(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { network.Close() })
	gateway := f.of(network.GatewayV4(), network.GatewayV6())[0]
	startClusterDNS(t, netip.AddrPortFrom(gateway, 53).String(), map[string]netip.Addr{
		"heddle-controlplane.heddle-system.svc.cluster.local.": gateway,
		"outside.example.":                         netip.MustParseAddr("192.0.2.1"),
		"unmeshed.default.svc.cluster.local.":      netip.MustParseAddr("10.96.0.99"),
		"1-2-3-4.default.pod.cluster.local.":       netip.MustParseAddr("1.2.3.4"),
		"api.default.svc.cluster.local.elsewhere.": netip.MustParseAddr("192.0.2.2"),
	})
	w := &world{T: t, families: f, plane: newPlane(t, netip.AddrPortFrom(gateway, 15010).String())}
	w.web = newPod(t, network, f, w.plane, "web-7c9f", "web")
	w.api = newPod(t, network, f, w.plane, "api-5d6b", "api", "--exclude-inbound-ports", "9090")
	w.app = startApp(t, w.api)
	w.vips = f.of(netip.MustParseAddr("10.96.0.7"), netip.MustParseAddr("fd00:96::7"))
	w.plane.set(w.workload(w.web))
	w.plane.set(service("api", "http", 8080, w.vips, w.api.name, w.api.ips)...)
	return w
}

// workload is what the control plane's discovery makes of a pod.
func (w *world) workload(p *pod) mesh.Object {
	id, err := spiffeid.New(trustDomain, "default", p.id)
	if err != nil {
		w.Fatal(err)
	}
	return &mesh.Workload{
		Meta:     mesh.Meta{Ref: mesh.Ref{Kind: mesh.KindWorkload, Name: mesh.Name{Namespace: "default", Name: p.name}}},
		Identity: id, Addresses: p.ips, Capture: mesh.Transparent, Pod: true, Node: "node",
	}
}

// call asks service api from pod web, at its virtual address of a family.
func (w *world) call(vip netip.Addr, path string) (int, string) {
	return get(w.web, "http://"+netip.AddrPortFrom(vip, 80).String()+path)
}
