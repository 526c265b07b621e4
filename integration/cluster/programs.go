package cluster

import (
	"context"
	"fmt"
	"io"
	"path/filepath"

	"github.com/heddle-mesh/heddle/install/parts"
	"github.com/heddle-mesh/heddle/tools/coredns"
	"github.com/heddle-mesh/heddle/tools/etcd"
	"github.com/heddle-mesh/heddle/tools/kubernetes"
	"github.com/heddle-mesh/heddle/tools/pause"
)

// built are the parts that a cluster is made of.
func built() []parts.Built {
	return []parts.Built{
		{Name: "kubernetes", Version: kubernetes.Version, Mod: kubernetes.Mod, Sum: kubernetes.Sum, Packages: kubernetes.Packages, Flags: kubernetes.Flags},
		{Name: "etcd", Version: etcd.Version, Mod: etcd.Mod, Sum: etcd.Sum, Packages: map[string]string{"etcd": etcd.Package}, Flags: "-s -w"},
		{Name: "coredns", Version: coredns.Version, Mod: coredns.Mod, Sum: coredns.Sum, Main: coredns.Main, Packages: map[string]string{"coredns": "."}, Flags: "-s -w"},
		{Name: "pause", Version: pause.Version, Mod: pause.Mod, Main: pause.Main, Packages: map[string]string{"pause": "."}, Flags: "-s -w"},
	}
}

// Programs are the paths of a cluster's programs, by name.
type Programs map[string]string

// Build finds the programs in the cache, and builds those that are not there: a quarter of
// an hour on two cores, once. w, which may be nil, is told.
func Build(ctx context.Context, w io.Writer) (Programs, error) {
	out := Programs{}
	for _, b := range built() {
		dir, err := b.Build(ctx, w)
		if err != nil {
			return nil, fmt.Errorf("programs of a cluster: %w", err)
		}
		for program := range b.Packages {
			out[program] = filepath.Join(dir, program)
		}
	}
	return out, nil
}
