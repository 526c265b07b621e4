package sidecar

import (
	"context"
	"log/slog"
	"path/filepath"
	"testing"

	"github.com/heddle-mesh/heddle/identity/spiffeid"
	"github.com/heddle-mesh/heddle/proxy/capture"
)

// TestEndBeforeBegin: who is told to end while it is still setting itself up ends well, as
// it does later on. A supervisor would start it again otherwise.
func TestEndBeforeBegin(t *testing.T) {
	id, err := spiffeid.New("mesh.local", "default", "api")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	network := capture.DefaultNetworkConfig()
	network.Mode, network.StateDir, network.Log = capture.Rootless, filepath.Join(dir, "network"), slog.New(slog.DiscardHandler)
	config := Config{
		ID: id, Workload: "api-0", Ports: []Port{{8080, 8080}}, Capture: capture.Rootless, Network: network,
		Socket: filepath.Join(dir, "controlplane.sock"), Address: "127.0.0.1:1",
		StateDir: dir, RunDir: filepath.Join(dir, "run"), Log: slog.New(slog.DiscardHandler),
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if code, err := Run(ctx, config); code != 0 || err != nil {
		t.Errorf("ended with code %d: %v", code, err)
	}
}
