package sidecar

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"net/http"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"golang.org/x/sync/errgroup"

	"github.com/heddle-mesh/heddle/identity/agent"
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
	ID        string        `json:"id"`
	Expires   time.Time     `json:"expires"`
	RenewAt   time.Time     `json:"renewAt"`
	LastError string        `json:"lastError,omitempty"`
	DiskError string        `json:"diskError,omitempty"`
	Chain     []Certificate `json:"chain,omitempty"` // the leaf first
}

// Certificate is one of an SVID's chain.
type Certificate struct {
	Subject   string    `json:"subject"` // of a leaf its SPIFFE ID
	Issuer    string    `json:"issuer"`
	Serial    string    `json:"serial"` // hexadecimal, as Envoy and openssl show it
	NotBefore time.Time `json:"notBefore"`
	NotAfter  time.Time `json:"notAfter"`
}

// NewIdentity is what is told of what an agent says.
func NewIdentity(s agent.Status) Identity {
	out := Identity{ID: s.ID.String(), Expires: s.Expires, RenewAt: s.RenewAt, LastError: s.LastError, DiskError: s.DiskError}
	for _, c := range s.Chain {
		subject := c.Subject.String()
		if !c.IsCA && len(c.URIs) > 0 {
			subject = c.URIs[0].String()
		}
		out.Chain = append(out.Chain, Certificate{
			Subject: subject, Issuer: c.Issuer.String(), Serial: hex.EncodeToString(c.SerialNumber.Bytes()),
			NotBefore: c.NotBefore, NotAfter: c.NotAfter,
		})
	}
	return out
}

// serveStatus answers on the status socket: GET /status, and GET /metrics for a supervisor
// that shows them to the machine.
func (s *Sidecar) serveStatus(ctx context.Context, group *errgroup.Group, metrics http.Handler) error {
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
	mux.Handle("GET /metrics", metrics)
	s.serveHTTP(ctx, group, mux, l)
	return nil
}

func (s *Sidecar) status() Status {
	out := Status{
		Workload: s.config.Workload, Namespace: s.config.ID.Namespace(), Service: s.config.ID.ServiceAccount(),
		Capture: s.ns.Mode().String(), NetNS: s.ns.Path(),
		Identity:     NewIdentity(s.identity.Status()),
		ControlPlane: s.relay.Upstream(), Resolvconf: string(s.resolvconf()),
	}
	if children := s.children.Load(); children != nil {
		envoy, app := children.Processes()
		out.Envoy, _ = envoy.Status()
		out.App, _ = app.Status()
	}
	if s.register != nil {
		state, _, _, _, _ := s.register.current()
		out.Addresses, out.Ready = state.Addresses, state.Ready
		return out
	}
	for _, a := range s.config.Pod.Addresses {
		out.Addresses = append(out.Addresses, a.String())
	}
	out.Ready = out.Envoy.State == supervise.Ready
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
