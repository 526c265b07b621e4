package cluster

import (
	"context"
	"fmt"
	"path/filepath"

	"github.com/heddle-mesh/heddle/tools/gatewayapi"
)

// GatewayAPI gives the files with the CustomResourceDefinitions of Gateway API's standard
// channel, of the pinned version.
func GatewayAPI(ctx context.Context) ([]string, error) {
	mod := fmt.Sprintf("module crds\n\ngo 1.26.0\n\nrequire %s %s\n", gatewayapi.Module, gatewayapi.Version)
	dir, err := moduleDir(ctx, gatewayapi.Module, []byte(mod), []byte(gatewayapi.Sum))
	if err != nil {
		return nil, err
	}
	return filepath.Glob(filepath.Join(dir, "config", "crd", "standard", "*.yaml"))
}
