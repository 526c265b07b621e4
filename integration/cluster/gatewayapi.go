package cluster

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/heddle-mesh/heddle/tools/gatewayapi"
)

// GatewayAPI gives the files with the CustomResourceDefinitions of Gateway API's standard
// channel, of the pinned version.
func GatewayAPI(ctx context.Context) ([]string, error) {
	dir, err := os.MkdirTemp("", "heddle-gatewayapi-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	if err := writeFiles(map[string]string{
		filepath.Join(dir, "go.mod"): fmt.Sprintf("module crds\n\ngo 1.26.0\n\nrequire %s %s\n", gatewayapi.Module, gatewayapi.Version),
		filepath.Join(dir, "go.sum"): gatewayapi.Sum,
	}); err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, "go", "mod", "download", "-json", gatewayapi.Module)
	cmd.Dir, cmd.Env = dir, append(os.Environ(), "GOFLAGS=-mod=mod", "GOWORK=off")
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("download %s: %w: %s", gatewayapi.Module, err, out)
	}
	var module struct{ Dir string }
	if err := json.Unmarshal(out, &module); err != nil {
		return nil, fmt.Errorf("download %s: %w", gatewayapi.Module, err)
	}
	return filepath.Glob(filepath.Join(module.Dir, "config", "crd", "standard", "*.yaml"))
}
