package sidecar

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"

	"github.com/heddle-mesh/heddle/discovery/api/apipb"
	"github.com/heddle-mesh/heddle/proxy/capture"
)

// A control plane that restarts is back in a second: look often.
var connectParams = grpc.ConnectParams{
	Backoff:           backoff.Config{BaseDelay: 50 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: 2 * time.Second},
	MinConnectTimeout: 3 * time.Second,
}

// port is one port of the application and the one that peers dial.
type port struct {
	Port
	Peer uint16
}

// choosePorts finds the ports that peers dial: the application's own where traffic is
// captured. An explicit sidecar opens ports of its own, the same again after a restart.
func (s *Sidecar) choosePorts(ctx context.Context) ([]port, error) {
	var out []port
	for _, p := range s.config.Ports {
		out = append(out, port{p, p.Number})
	}
	if s.config.Capture != capture.Explicit {
		return out, nil
	}
	file := filepath.Join(s.config.StateDir, "ports.json")
	remembered := map[uint16]uint16{}
	if data, err := os.ReadFile(file); err == nil {
		_ = json.Unmarshal(data, &remembered) // a damaged file only means new ports
	}
	for i, p := range out {
		l, err := listenAgain(ctx, remembered[p.Number])
		if err != nil {
			return nil, fmt.Errorf("find a port for peers of %d: %w", p.Number, err)
		}
		out[i].Peer = uint16(l.Addr().(*net.TCPAddr).Port)
		remembered[p.Number] = out[i].Peer
		defer l.Close() // Envoy takes it over
	}
	data, err := json.Marshal(remembered)
	if err != nil {
		return nil, err
	}
	return out, os.WriteFile(file, data, 0o600)
}

// listenAgain listens on a loopback port, or if that is taken or 0 on a free one.
func listenAgain(ctx context.Context, port uint16) (net.Listener, error) {
	var lc net.ListenConfig
	if l, err := lc.Listen(ctx, "tcp4", fmt.Sprintf("127.0.0.1:%d", port)); err == nil || port == 0 {
		return l, err
	}
	return lc.Listen(ctx, "tcp4", "127.0.0.1:0")
}

// workload is what the control plane learns of us.
func (s *Sidecar) workload() *apipb.Workload {
	c := s.config
	node, _ := os.Hostname() // only for people
	w := &apipb.Workload{
		Namespace: c.ID.Namespace(), Service: c.ID.ServiceAccount(), Name: c.Workload,
		Labels: c.Labels, Zone: c.Zone, Node: node, Capture: "transparent",
	}
	for _, p := range s.ports {
		w.Ports = append(w.Ports, &apipb.WorkloadPort{App: uint32(p.Number), Peer: uint32(p.Peer), Local: uint32(p.Local)})
	}
	for _, u := range c.Upstreams {
		name, namespace, _ := strings.Cut(u.Service, ".")
		w.Upstreams = append(w.Upstreams, &apipb.Upstream{
			Service: name, Namespace: namespace, Port: uint32(u.Port), Local: u.Local.String(),
		})
	}
	if c.Capture == capture.Explicit {
		w.Capture, w.Addresses = "explicit", []string{"127.0.0.1"}
		return w
	}
	w.Addresses = append(w.Addresses, s.ns.AddrV4().String())
	if v6 := s.ns.AddrV6(); v6.IsValid() {
		w.Addresses = append(w.Addresses, v6.String())
	}
	return w
}
