package relay

import (
	"context"

	"github.com/heddle-mesh/heddle/controlplane/xds"
)

// Want brings clusters to Envoy that it may lack, by asking the control plane for the first
// of those, and returns true when it has taken them all, or false when the context is done.
// They are of one service: who asks for one of them gets the others, too.
func (r *Relay) Want(ctx context.Context, clusters ...string) bool {
	asked := ""
	for {
		taken := r.taken.C()
		missing := r.good.lacks(xds.ClusterType, clusters)
		if missing == "" {
			return true
		}
		asks := r.asks
		if asked == missing {
			asks = nil
		}
		select {
		case asks <- missing:
			asked = missing
		case <-taken:
		case <-ctx.Done():
			return false
		}
	}
}

// lacks gives the first name that is not held, or "".
func (g *good) lacks(typ string, names []string) string {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, name := range names {
		if _, ok := g.types[typ][name]; !ok {
			return name
		}
	}
	return ""
}
