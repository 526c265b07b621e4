// Heddle-cluster boots test clusters by hand: see its usage, and package cluster.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/heddle-mesh/heddle/integration/cluster"
)

const usage = `usage: heddle-cluster [flags] COMMAND

  build               build Kubernetes, etcd and CoreDNS, once
  link DIR            build them, and link them into a folder
  up                  boot a cluster and leave it running
  down                end it and remove what it left
  in COMMAND...       run a command in its network, where kubectl works
  node I COMMAND...   run a command on node I
  load FILE...        import image archives on every node
`

func main() {
	cluster.Main()
	var o cluster.Options
	var images string
	flag.StringVar(&o.Name, "name", "default", "name of the cluster")
	flag.StringVar(&o.Dir, "dir", "", "its folder (default one of that name under the temporary folder)")
	flag.IntVar(&o.Nodes, "nodes", 3, "number of nodes")
	flag.StringVar(&images, "images", "", "image archives that every node has from the start, a comma between them")
	flag.Usage = func() { fmt.Fprint(os.Stderr, usage, "\n"); flag.PrintDefaults() }
	flag.Parse()
	if o.Dir == "" {
		o.Dir = filepath.Join(os.TempDir(), "heddle-cluster-"+o.Name)
	}
	if images != "" {
		o.Images = strings.Split(images, ",")
	}
	o.Detach, o.Log = true, os.Stderr
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	err := run(ctx, o, flag.Args())
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		os.Exit(exit.ExitCode())
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "heddle-cluster:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, o cluster.Options, args []string) error {
	if len(args) == 0 {
		flag.Usage()
		os.Exit(2)
	}
	switch args[0] {
	case "build":
		_, err := cluster.Build(ctx, os.Stderr)
		return err
	case "link":
		if len(args) != 2 {
			return errors.New("link: want a folder")
		}
		return link(ctx, args[1])
	case "up":
		_, err := cluster.Start(ctx, o)
		return err
	}
	c, err := cluster.Find(o.Dir)
	if err != nil {
		return err
	}
	switch args[0] {
	case "down":
		return c.Close()
	case "in":
		return attached(c.In(ctx, args[1:]...))
	case "node":
		var i int
		if len(args) < 3 {
			return errors.New("node: want the number of a node and a command")
		}
		if _, err := fmt.Sscan(args[1], &i); err != nil {
			return fmt.Errorf("node %q: want a number", args[1])
		}
		cmd, err := c.OnNode(ctx, i, args[2:]...)
		if err != nil {
			return err
		}
		return attached(cmd)
	case "load":
		for _, archive := range args[1:] {
			if err := c.Load(ctx, archive); err != nil {
				return err
			}
		}
		return nil
	}
	return fmt.Errorf("there is no command %q; see -h", args[0])
}

// link makes a folder with all programs, for tests that need an API server alone.
func link(ctx context.Context, dir string) error {
	programs, err := cluster.Build(ctx, os.Stderr)
	if err != nil {
		return err
	}
	if err := errors.Join(os.RemoveAll(dir), os.MkdirAll(dir, 0o755)); err != nil {
		return err
	}
	for name, path := range programs {
		if err := os.Symlink(path, filepath.Join(dir, name)); err != nil {
			return err
		}
	}
	return nil
}

func attached(cmd *exec.Cmd) error {
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	return cmd.Run()
}
