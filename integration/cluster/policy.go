package cluster

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/heddle-mesh/heddle/install/parts"
	"github.com/heddle-mesh/heddle/tools/netpol"
)

// engine enforces NetworkPolicies.
var engine = parts.Built{Name: "netpol", Version: netpol.Version, Mod: netpol.Mod, Sum: netpol.Sum, Main: netpol.Main, Packages: map[string]string{"netpol": "."}, Flags: "-s -w"}

// EnforceNetworkPolicies runs an engine for NetworkPolicies on every node; without one they
// are objects that nobody reads. It is built at first, in two minutes. What is in force a
// moment later ends with stop, or with the caller. log, which may be nil, is told of the
// building; the engines write to netpol-nN.log.
func (c *Cluster) EnforceNetworkPolicies(ctx context.Context, log io.Writer) (stop func() error, err error) {
	dir, err := engine.Build(ctx, log)
	if err != nil {
		return nil, fmt.Errorf("engine for NetworkPolicies: %w", err)
	}
	var stops []func() error
	stop = func() error {
		var errs []error
		for _, s := range stops {
			errs = append(errs, s())
		}
		return errors.Join(errs...)
	}
	for i := 1; i <= c.nodes; i++ {
		s, err := c.enforceOn(i, filepath.Join(dir, "netpol"))
		if err != nil {
			return nil, errors.Join(fmt.Errorf("engine for NetworkPolicies on %s: %w", nodeName(i), err), stop())
		}
		stops = append(stops, s)
	}
	return stop, nil
}

// enforceOn runs the engine on a node.
func (c *Cluster) enforceOn(i int, program string) (stop func() error, err error) {
	cmd, err := c.OnNode(context.Background(), i, program, "--kubeconfig="+c.Kubeconfig(), "--node="+nodeName(i), "--services="+serviceCIDRs)
	if err != nil {
		return nil, err
	}
	return c.background(cmd, "netpol-"+nodeName(i)+".log")
}

// background runs a program that ends when its standard input does, so with stop or with
// the caller. It writes to a file of the cluster's folder log.
func (c *Cluster) background(cmd *exec.Cmd, file string) (stop func() error, err error) {
	log, err := os.Create(filepath.Join(c.dir, "log", file))
	if err != nil {
		return nil, err
	}
	cmd.Stdout, cmd.Stderr = log, log
	lifeline, err := cmd.StdinPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		return nil, errors.Join(err, log.Close())
	}
	return func() error { return errors.Join(lifeline.Close(), ended(cmd, log.Name()), log.Close()) }, nil
}

// ended waits for the end of a program, and tells what it said where it went wrong.
func ended(cmd *exec.Cmd, log string) error {
	err := cmd.Wait()
	if err == nil {
		return nil
	}
	said, _ := os.ReadFile(log)
	lines := strings.Split(strings.TrimSpace(string(said)), "\n")
	return fmt.Errorf("%s: %w: %s", filepath.Base(cmd.Path), err, lines[len(lines)-1])
}
