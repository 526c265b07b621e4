package cluster

import (
	"context"
	"fmt"
	"io"
	"path/filepath"

	"github.com/heddle-mesh/heddle/install/parts"
	"github.com/heddle-mesh/heddle/tools/certmanager"
)

// issuers are cert-manager's controllers.
var issuers = parts.Built{
	Name: "cert-manager", Version: certmanager.Version, Mod: certmanager.Mod, Sum: certmanager.Sum, Main: certmanager.Main,
	Packages: map[string]string{"cert-manager": "."}, Flags: "-s -w",
}

// RunCertManager gives the cluster cert-manager with its issuers SelfSigned and CA. It is
// built at first, in two minutes, and ends with stop, or with the caller; its kinds stay.
// log, which may be nil, is told of the building; it writes to cert-manager.log.
func (c *Cluster) RunCertManager(ctx context.Context, log io.Writer) (stop func() error, err error) {
	dir, err := issuers.Build(ctx, log)
	if err != nil {
		return nil, fmt.Errorf("cert-manager: %w", err)
	}
	module, err := moduleDir(ctx, certmanager.Module, certmanager.Mod, certmanager.Sum)
	if err != nil {
		return nil, fmt.Errorf("cert-manager: %w", err)
	}
	for _, args := range [][]string{
		{"apply", "--server-side", "-f", filepath.Join(module, "deploy", "crds")},
		{"wait", "--for=condition=Established", "crd", "certificates.cert-manager.io", "issuers.cert-manager.io", "--timeout=60s"},
	} {
		if err := c.kubectl(ctx, args...); err != nil {
			return nil, fmt.Errorf("cert-manager: %w", err)
		}
	}
	return c.background(c.In(context.Background(), filepath.Join(dir, "cert-manager"), "--kubeconfig="+c.Kubeconfig()), "cert-manager.log")
}

// kubectl runs kubectl as the cluster's administrator.
func (c *Cluster) kubectl(ctx context.Context, args ...string) error {
	if out, err := c.In(ctx, append([]string{"kubectl"}, args...)...).CombinedOutput(); err != nil {
		return fmt.Errorf("kubectl %s: %w: %s", args[0], err, out)
	}
	return nil
}
