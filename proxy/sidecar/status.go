package sidecar

import (
	"context"
	"encoding/json"
	"net/http"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"golang.org/x/sync/errgroup"

	"github.com/heddle-mesh/heddle/proxy/supervise"
)

// Status is what a sidecar tells of itself on its status socket.
type Status struct {
	Workload  string           `json:"workload"`
	Namespace string           `json:"namespace"`
	Service   string           `json:"service"`
	Capture   string           `json:"capture"`
	Addresses []string         `json:"addresses"`
	NetNS     string           `json:"netns,omitempty"` // path
	Ready     bool             `json:"ready"`
	Envoy     supervise.Status `json:"envoy"`
	App       supervise.Status `json:"app"`
	Identity  Identity         `json:"identity"`
	// ControlPlane is whether the configuration stream is connected; without it the
	// sidecar goes on with what it has.
	ControlPlane bool   `json:"controlPlane"`
	Resolvconf   string `json:"resolvconf,omitempty"`
}

// Identity is the workload's SVID, without its key.
type Identity struct {
	ID        string    `json:"id"`
	Expires   time.Time `json:"expires"`
	RenewAt   time.Time `json:"renewAt"`
	LastError string    `json:"lastError,omitempty"`
}

func (s *Sidecar) serveStatus(ctx context.Context, group *errgroup.Group) error {
	path := s.config.Status
	if path == "" {
		path = s.config.path(statusSocket)
	}
	l, err := listenUnix(path, -1)
	if err != nil {
		return err
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /status", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(s.status())
	})
	s.serveHTTP(ctx, group, mux, l)
	return nil
}

func (s *Sidecar) status() Status {
	state, _, _, _, _ := s.register.current()
	identity := s.identity.Status()
	out := Status{
		Workload: s.config.Workload, Namespace: s.config.ID.Namespace(), Service: s.config.ID.ServiceAccount(),
		Capture: s.ns.Mode().String(), Addresses: state.Addresses, NetNS: s.ns.Path(), Ready: state.Ready,
		Identity: Identity{
			ID: identity.ID.String(), Expires: identity.Expires, RenewAt: identity.RenewAt, LastError: identity.LastError,
		},
		ControlPlane: s.relay.Upstream(), Resolvconf: string(s.resolvconf()),
	}
	if children := s.children.Load(); children != nil {
		envoy, app := children.Processes()
		out.Envoy, _ = envoy.Status()
		out.App, _ = app.Status()
	}
	return out
}

// node says who we are on the stream for names.
func (s *Sidecar) node() *corev3.Node {
	return &corev3.Node{
		Id:       s.config.ID.Namespace() + "/" + s.config.Workload + "/agent",
		Cluster:  s.config.ID.ServiceAccount() + "." + s.config.ID.Namespace(),
		Locality: &corev3.Locality{Zone: s.config.Zone},
	}
}
