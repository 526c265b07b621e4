package admin

import (
	"slices"
	"strings"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/heddle-mesh/heddle/controlplane"
	"github.com/heddle-mesh/heddle/controlplane/mesh"
	"github.com/heddle-mesh/heddle/controlplane/xds"
	"github.com/heddle-mesh/heddle/discovery/api/apipb"
)

// sidecar is what one workload is connected by: the stream of its Envoy, and that of its
// agent, which takes the names for DNS. People know the two as one proxy.
type sidecar struct {
	id       string // NAMESPACE/WORKLOAD
	workload mesh.Name
	streams  []xds.ProxyStatus // the Envoy's, then the agent's if there is one
}

// sidecars groups the streams by workload, in order of id. An agent without its Envoy
// is left out: nothing of the mesh runs there yet. Of two streams of the same id the
// newer one counts; the other is a dead connection that has not timed out yet.
func (s *Server) sidecars() []sidecar {
	var out []sidecar
	agents := map[string]xds.ProxyStatus{}
	for _, p := range s.streams() { // in order of id, the newest last
		if id, ok := strings.CutSuffix(p.Proxy.ID, controlplane.AgentSuffix); ok {
			agents[id] = p
			continue
		}
		if n := len(out); n > 0 && out[n-1].id == p.Proxy.ID {
			out[n-1].streams[0] = p
			continue
		}
		namespace, name, _ := strings.Cut(p.Proxy.ID, "/")
		out = append(out, sidecar{id: p.Proxy.ID, workload: mesh.Name{Namespace: namespace, Name: name}, streams: []xds.ProxyStatus{p}})
	}
	for i := range out {
		if agent, ok := agents[out[i].id]; ok {
			out[i].streams = append(out[i].streams, agent)
		}
	}
	return out
}

// settled is the revision up to which the sidecar has answered everything.
func (c sidecar) settled() uint64 {
	least := c.streams[0].Settled
	for _, p := range c.streams[1:] {
		least = min(least, p.Settled)
	}
	return least
}

// concerns reports whether the sidecar subscribes to resources like one of the keys.
func (c sidecar) concerns(keys []xds.Key) bool {
	for _, p := range c.streams {
		for _, t := range p.Types {
			if slices.ContainsFunc(keys, func(k xds.Key) bool {
				return k.Type == t.Type && (k.Variant == "" || slices.Contains(p.Proxy.Variants, k.Variant))
			}) {
				return true
			}
		}
	}
	return false
}

// refusal is a resource that a sidecar refuses as it is now.
type refusal struct {
	sidecar string
	xds.Refusal
	origins []xds.Origin // of the resource; those that are new in it where that is known
}

// refusals are those of the sidecar that still matter: of content that has been
// replaced since, the next answer tells.
func (s *Server) refusals(c sidecar) []refusal {
	var out []refusal
	for _, p := range c.streams {
		for _, r := range p.Refused {
			if now := s.pipeline.Cache().Get(r.Key); now != nil && now.Version == r.Version {
				origins := r.Changed
				if len(origins) == 0 {
					origins = now.Origins
				}
				out = append(out, refusal{c.id, r, origins})
			}
		}
	}
	return out
}

// accused are the objects that a refusal is about. The routes of a service are made
// from its name and from them, so where there are routes the service is not to blame.
func (r refusal) accused() []mesh.Ref {
	var routes, all []mesh.Ref
	for _, o := range r.origins {
		ref := refOf(o)
		all = append(all, ref)
		if isRoute(ref.Kind) {
			routes = append(routes, ref)
		}
	}
	if len(routes) > 0 {
		return routes
	}
	return all
}

func isRoute(k mesh.Kind) bool { return k == mesh.KindHTTPRoute || k == mesh.KindGRPCRoute }

func refOf(o xds.Origin) mesh.Ref {
	return mesh.Ref{Kind: mesh.Kind(o.Kind), Name: mesh.Name{Namespace: o.Namespace, Name: o.Name}}
}

func refPB(r mesh.Ref) *apipb.Ref {
	return &apipb.Ref{Kind: string(r.Kind), Namespace: r.Namespace, Name: r.Name.Name}
}

func originsPB(origins []xds.Origin) []*apipb.Origin {
	var out []*apipb.Origin
	for _, o := range origins {
		out = append(out, &apipb.Origin{Ref: refPB(refOf(o)), Generation: o.Generation})
	}
	return out
}

func (r refusal) pb() *apipb.Nack {
	return &apipb.Nack{
		Type: r.Key.Type, Name: r.Key.Name, Version: r.Version, Error: r.Error,
		Origins: originsPB(r.origins), Time: timestamppb.New(r.Time),
	}
}
