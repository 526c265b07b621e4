//go:build k8s

package k8s

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/heddle-mesh/heddle/install/image"
	"github.com/heddle-mesh/heddle/integration/cluster"
	"github.com/heddle-mesh/heddle/proxy/envoy"
)

// Images that the tests load into the cluster.
const (
	heddleImage = "heddle.local/heddle:dev"
	appImage    = "heddle.local/app:dev"
)

// c is the cluster of all tests, and heddle and app the programs.
var (
	c           *cluster.Cluster
	heddle, app string
)

func TestMain(m *testing.M) {
	cluster.Main()
	os.Exit(run(m))
}

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "heddle-k8s-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	ctx, cancel := context.WithTimeout(context.Background(), 40*time.Minute) // a cold build of Kubernetes
	defer cancel()
	stop, err := boot(ctx, dir)
	if err != nil {
		fmt.Fprintln(os.Stderr, "k8s:", err)
		return 1
	}
	code := m.Run()
	if code != 0 {
		keepLogs()
	}
	stop()
	return code
}

// boot makes the images, boots the cluster and installs Heddle.
func boot(ctx context.Context, dir string) (stop func(), err error) {
	archives, err := images(ctx, dir)
	if err != nil {
		return nil, err
	}
	stop = func() {}
	if existing := os.Getenv("HEDDLE_CLUSTER"); existing != "" {
		if c, err = cluster.Find(existing); err != nil {
			return nil, err
		}
		for _, archive := range archives {
			if err := c.Load(ctx, archive); err != nil {
				return nil, err
			}
		}
	} else {
		o := cluster.Options{Name: fmt.Sprintf("test-%d", os.Getpid()), Dir: filepath.Join(dir, "cluster"), Nodes: 3, Images: archives, Log: os.Stderr}
		if c, err = cluster.Start(ctx, o); err != nil {
			return nil, err
		}
		stop = func() {
			if err := c.Close(); err != nil {
				fmt.Fprintln(os.Stderr, "k8s: end the cluster:", err)
			}
		}
	}
	if err := gatewayAPI(ctx); err != nil {
		stop()
		return nil, err
	}
	if out, err := install(ctx); err != nil {
		stop()
		return nil, fmt.Errorf("install: %w: %s", err, out)
	}
	return stop, nil
}

// gatewayAPI installs the CustomResourceDefinitions of routes.
func gatewayAPI(ctx context.Context) error {
	files, err := cluster.GatewayAPI(ctx)
	if err != nil {
		return err
	}
	for _, file := range files {
		if out, err := c.In(ctx, "kubectl", "apply", "--server-side", "-f", file).CombinedOutput(); err != nil {
			return fmt.Errorf("install Gateway API: %w: %s", err, out)
		}
	}
	return nil
}

// install runs heddle install; the control plane is restarted, as its image may be new
// under its old name.
func install(ctx context.Context, args ...string) (string, error) {
	all := append([]string{"install", "--timeout=90s"}, args...)
	out, err := c.In(ctx, append([]string{heddle}, all...)...).CombinedOutput()
	if err == nil && os.Getenv("HEDDLE_CLUSTER") != "" {
		for _, args := range [][]string{{"restart"}, {"status", "--timeout=90s"}} {
			more, err := c.In(ctx, append([]string{"kubectl", "-n", "heddle-system", "rollout", args[0], "deployment/heddle-controlplane"}, args[1:]...)...).CombinedOutput()
			if out = append(out, more...); err != nil {
				return string(out), err
			}
		}
	}
	return string(out), err
}

// images builds the programs and writes the images.
func images(ctx context.Context, dir string) ([]string, error) {
	heddle, app = filepath.Join(dir, "heddle"), filepath.Join(dir, "app")
	for program, pkg := range map[string]string{heddle: "../../cmd/heddle", app: "../e2e/app"} {
		cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-o", program, pkg)
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			return nil, fmt.Errorf("build %s: %w: %s", pkg, err, out)
		}
	}
	proxy, err := envoy.Obtain(ctx, "", os.Stderr)
	if err != nil {
		return nil, err
	}
	ours, err := image.Heddle(heddleImage, heddle, proxy.Path)
	if err != nil {
		return nil, err
	}
	theirs := image.Image{
		Name: appImage, Files: []image.File{{From: app, To: "/app", Mode: 0o755}}, Entrypoint: []string{"/app"}, User: "65532:65532",
		Dirs: []image.Dir{{Path: "/tmp", Mode: 0o777 | os.ModeSticky}},
	}
	var out []string
	for file, i := range map[string]image.Image{"heddle.tar": ours, "app.tar": theirs} {
		path := filepath.Join(dir, file)
		if err := image.WriteFile(path, i); err != nil {
			return nil, err
		}
		out = append(out, path)
	}
	return out, nil
}

// keepLogs shows what an engineer would look at first.
func keepLogs() {
	for _, args := range [][]string{
		{"kubectl", "get", "pods", "-A", "-o", "wide"},
		{"kubectl", "get", "events", "-A", "--field-selector=type=Warning"},
		{"kubectl", "-n", "heddle-system", "logs", "-l", "app.kubernetes.io/name=heddle-controlplane", "--tail=10", "--prefix"},
	} {
		out, _ := c.In(context.Background(), args...).CombinedOutput()
		fmt.Fprintf(os.Stderr, "== %v\n%s\n", args, out)
	}
}
