// Package serve wires the control plane's process: the sources of objects, the pipeline,
// the CA, and the servers that agents, proxies and people connect to. cmd/heddle and the
// end-to-end tests call Run; everything it wires is in other packages.
package serve

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"time"

	"github.com/heddle-mesh/heddle/controlplane"
	"github.com/heddle-mesh/heddle/controlplane/admin"
	"github.com/heddle-mesh/heddle/controlplane/mesh"
	"github.com/heddle-mesh/heddle/controlplane/xds"
	"github.com/heddle-mesh/heddle/discovery/state"
	"github.com/heddle-mesh/heddle/identity/attest"
	"github.com/heddle-mesh/heddle/identity/ca"

	"google.golang.org/grpc"
)

// Config is a control plane's.
type Config struct {
	StateDir string // objects, registrations, keys; private
	Socket   string // Unix socket for people and for first identities
	Listen   string // ADDRESS:PORT for agents, with mutual TLS
	Objects  string // directory of manifests to watch; "" = none
	Metrics  string // ADDRESS:PORT for Prometheus; "" = none
	OTLP     string // HOST:PORT that takes our own traces; "" = none

	TrustDomain, ClusterDomain string
	Virtual                    state.Config   // ranges of virtual IPs
	Workloads                  []netip.Prefix // ranges of workloads' addresses
	SVIDTTL                    time.Duration
	Grace                      time.Duration // of a workload whose agent is gone

	// OnDemand gives each proxy what its workload uses, as it comes to use it, and no more.
	OnDemand bool

	// Issuer makes what signs; nil = a root of our own in StateDir does.
	Issuer Issuer

	// Roots keeps the root of our own that replicas share; nil = it is ours alone.
	Roots Roots

	// Outside is where the mesh's objects live when not with us; nil = we keep them.
	Outside *Outside

	Log *slog.Logger
}

// Outside is an engine that keeps the objects of a mesh, as Kubernetes does. Objects,
// Virtual and Grace of the Config mean nothing then.
type Outside struct {
	// Open makes the source of the objects. Nothing is served until it is synced.
	Open func(submit Submit) (Source, error)
	// Attestors are asked before our own who a workload is.
	Attestors []attest.Attestor
	// Run, unless nil, is run beside the servers, which it may look into by parts.
	Run func(ctx context.Context, parts Parts) error
	// Advice says how its objects are written, to those who try it here.
	Advice string
}

// Issuer gives and renews an authority that somebody else makes.
type Issuer interface {
	// Open makes the authority.
	Open(ctx context.Context, config ca.Config) (*ca.CA, error)
	// Follow gives it what is issued anew, until the context is done.
	Follow(ctx context.Context, authority *ca.CA) error
}

// Roots keeps the root of a control plane of many replicas.
type Roots interface {
	// Prepare begins a rotation of the root.
	Prepare(ctx context.Context, authority *ca.CA) error
	// Follow brings authority to the steps of rotations, until the context is done.
	Follow(ctx context.Context, authority *ca.CA) error
}

// Parts are what an Outside may look into.
type Parts struct {
	Pipeline *controlplane.Pipeline
	Admin    *admin.Server
	XDS      *xds.Server
	CA       *ca.CA
	// Dial connects to another replica of this control plane, ADDRESS:PORT.
	Dial func(address string) (*grpc.ClientConn, error)
}

// Submit takes changes into the mesh, all or none of them.
type Submit func(changes []mesh.Change) (revision uint64, err error)

// Source brings the objects of a mesh.
type Source interface {
	// Run submits what there is, and then every change, until the context is done.
	Run(ctx context.Context) error
	// Synced is closed when all that there is has been submitted for the first time.
	Synced() <-chan struct{}
}

// DefaultConfig has every default but folders and log.
func DefaultConfig() Config {
	return Config{
		Listen:        "127.0.0.1:15010", // 15010 to 15014 are where meshes have their control planes
		Metrics:       "127.0.0.1:15014",
		TrustDomain:   "mesh.local",
		ClusterDomain: "cluster.local",
		Virtual:       state.DefaultConfig(),
		Workloads:     []netip.Prefix{netip.MustParsePrefix("10.68.0.0/16"), netip.MustParsePrefix("fd68:6564:646c:1::/64")},
		SVIDTTL:       ca.DefaultConfig().SVIDTTL,
		Grace:         30 * time.Second, // longer than a restart takes, of either side
	}
}

// Validate returns everything that is wrong.
func (c Config) Validate() error {
	var errs []error
	for _, f := range []struct{ flag, value string }{{"--state", c.StateDir}, {"--socket", c.Socket}, {"--listen", c.Listen}} {
		if f.value == "" {
			errs = append(errs, fmt.Errorf("control plane: %s is empty", f.flag))
		}
	}
	if c.Outside != nil && c.Objects != "" {
		errs = append(errs, fmt.Errorf("control plane: --objects %s: the objects of this mesh live elsewhere; %s", c.Objects, c.Outside.Advice))
	}
	if c.SVIDTTL < ca.MinSVIDTTL {
		errs = append(errs, fmt.Errorf("control plane: SVIDs of %s are too short-lived, at least %s", c.SVIDTTL, ca.MinSVIDTTL))
	}
	return errors.Join(errs...)
}

// prefixes are all of the mesh's own addresses.
func (c Config) prefixes() []netip.Prefix {
	out := append([]netip.Prefix(nil), c.Workloads...)
	for _, p := range []netip.Prefix{c.Virtual.VirtualV4, c.Virtual.VirtualV6} {
		if p.IsValid() {
			out = append(out, p)
		}
	}
	return out
}
