// Package serve wires the control plane's process: the sources of objects, the pipeline,
// the CA, and the servers that agents, proxies and people connect to. cmd/heddle and the
// end-to-end tests call Run; everything it wires is in other packages.
package serve

import (
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"time"

	"github.com/heddle-mesh/heddle/discovery/state"
	"github.com/heddle-mesh/heddle/identity/ca"
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

	Log *slog.Logger
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
