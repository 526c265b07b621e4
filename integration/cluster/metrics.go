package cluster

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	_ "embed"

	"github.com/heddle-mesh/heddle/install/image"
	"github.com/heddle-mesh/heddle/install/parts"
	"github.com/heddle-mesh/heddle/tools/metricsserver"
)

//go:embed config/metrics.yaml
var metrics string

// meter tells what pods use.
var meter = parts.Built{
	Name: "metrics-server", Version: metricsserver.Version, Mod: metricsserver.Mod, Sum: metricsserver.Sum,
	Packages: map[string]string{"metrics-server": metricsserver.Package}, Flags: "-s -w",
}

const metricsImage = "cluster.local/metrics-server:1"

// ServeMetrics gives the cluster a metrics-server, without which no HorizontalPodAutoscaler
// knows what pods use. It is built at first, in a few minutes, and stays. log, which may be
// nil, is told of the building. The first figures come half a minute later.
func (c *Cluster) ServeMetrics(ctx context.Context, log io.Writer) error {
	dir, err := meter.Build(ctx, log)
	if err != nil {
		return fmt.Errorf("metrics-server: %w", err)
	}
	archive := filepath.Join(c.dir, "images", "metrics-server.tar")
	if err := image.WriteFile(archive, image.Image{
		Name: metricsImage, Files: []image.File{{From: filepath.Join(dir, "metrics-server"), To: "/metrics-server", Mode: 0o755}}, Entrypoint: []string{"/metrics-server"},
	}); err != nil {
		return err
	}
	if err := c.Load(ctx, archive); err != nil {
		return err
	}
	manifest := filepath.Join(c.dir, "metrics.yaml")
	if err := os.WriteFile(manifest, []byte(strings.ReplaceAll(metrics, "METRICS_IMAGE", metricsImage)), 0o644); err != nil {
		return err
	}
	for _, args := range [][]string{
		{"apply", "-f", manifest},
		{"wait", "--for=condition=Available", "apiservice/v1beta1.metrics.k8s.io", "--timeout=90s"},
	} {
		if err := c.kubectl(ctx, args...); err != nil {
			return fmt.Errorf("metrics-server: %w", err)
		}
	}
	return nil
}
