package main

import (
	"crypto/sha256"
	"encoding/hex"
	"net/netip"
	"os"
	"path/filepath"

	"github.com/heddle-mesh/heddle/discovery/state"
	"github.com/heddle-mesh/heddle/proxy/capture"
)

// Defaults that several commands share.
const (
	defaultTrustDomain   = "mesh.local"
	defaultClusterDomain = "cluster.local"
	defaultAddress       = "127.0.0.1:15010" // of the control plane
)

// defaultVirtualPrefixes are the ranges of services' virtual IPs.
func defaultVirtualPrefixes() []netip.Prefix {
	ranges := state.DefaultConfig()
	return []netip.Prefix{ranges.VirtualV4, ranges.VirtualV6}
}

// stateHome is the folder for state of this user that survives a restart of the machine.
func stateHome() string {
	if dir := os.Getenv("XDG_STATE_HOME"); dir != "" {
		return filepath.Join(dir, "heddle")
	}
	if capture.MachineRoot() {
		return "/var/lib/heddle"
	}
	home, err := os.UserHomeDir()
	if err != nil {
		home = os.TempDir()
	}
	return filepath.Join(home, ".local", "state", "heddle")
}

// runHome is the folder for what all sidecars of this machine share while it runs.
func runHome() string {
	if capture.MachineRoot() {
		return "/run/heddle"
	}
	return filepath.Join(stateHome(), "run")
}

// shortHash names a folder after another one, short enough for the paths of sockets.
func shortHash(s string) string {
	sum := sha256.Sum256([]byte(s))
	return hex.EncodeToString(sum[:6])
}
