package probe

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"strings"

	"golang.org/x/sync/singleflight"
)

// Prefix begins the paths of probes.
const Prefix = "/probe/"

// Handler answers probes: 200, or 503 with the reason.
type Handler struct {
	probes map[string]Probe
	asker  *asker
	flight singleflight.Group
	log    *slog.Logger
}

// NewHandler makes a handler for probes by their path. Addresses are the pod's, the first
// the one that the kubelet asks.
func NewHandler(probes map[string]Probe, addresses []netip.Addr, log *slog.Logger) *Handler {
	return &Handler{probes: probes, asker: newAsker(addresses), log: log}
}

// ServeHTTP implements http.Handler. Whoever reaches the port may ask, and the application
// gets one question of a kind at a time, however many do.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	p, ok := h.probes[r.URL.Path]
	if !ok {
		http.Error(w, "there is no such probe", http.StatusNotFound)
		return
	}
	answer := h.flight.DoChan(r.URL.Path, func() (any, error) {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), p.timeout())
		defer cancel()
		return nil, h.asker.ask(ctx, p, userAgent(r))
	})
	select {
	case result := <-answer:
		if result.Err != nil {
			h.log.Debug("a probe failed", "probe", r.URL.Path, "error", result.Err)
			http.Error(w, result.Err.Error(), http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintln(w, "ok")
	case <-r.Context().Done(): // nobody is there to be told
	}
}

// userAgent is what the application is told of who asks: the kubelet of its node, with its
// version, as without a mesh. It says so of probes ("kube-probe/1.37") and of hooks
// ("kube-lifecycle/1.37").
func userAgent(r *http.Request) string {
	if agent := r.UserAgent(); strings.HasPrefix(agent, "kube-") && len(agent) < 64 {
		return agent
	}
	return "kube-probe/heddle"
}
