package admin

import (
	"cmp"
	"context"
	"slices"

	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/heddle-mesh/heddle/controlplane"
	"github.com/heddle-mesh/heddle/controlplane/mesh"
	"github.com/heddle-mesh/heddle/controlplane/translate"
	"github.com/heddle-mesh/heddle/controlplane/xds"
	"github.com/heddle-mesh/heddle/discovery/api/apipb"
)

// Config gives what the proxy of a workload is to hold, each resource with the objects
// that made it, by type and name. Without a workload it gives what is the same for all.
// A workload that is not registered is NOT_FOUND. What the proxy refuses of it, and thus
// holds in an older version, Proxies tells.
func (s *Server) Config(_ context.Context, r *apipb.ConfigRequest) (*apipb.ConfigReply, error) {
	var variants []string
	covers := func(*xds.Resource) bool { return true }
	if name := r.GetWorkload().GetName(); name != "" {
		full := mesh.Name{Namespace: cmp.Or(r.GetWorkload().GetNamespace(), "default"), Name: name}
		w, ok := s.pipeline.Snapshot().Workloads.Lookup(full)
		if !ok {
			return nil, status.Errorf(codes.NotFound, "workload %s is not registered; see 'heddle get workloads -A'", full)
		}
		variants, covers = controlplane.Variants(w), s.xds.Covers(full.String())
	}
	reply := &apipb.ConfigReply{}
	for _, resource := range s.visible(variants, r.GetTypes()) {
		if !covers(resource) {
			continue
		}
		pb, err := resourcePB(resource)
		if err != nil {
			return nil, err
		}
		reply.Resources = append(reply.Resources, pb)
	}
	return reply, nil
}

// visible are the resources that a proxy of those variants sees: of each type and name
// the one of its first variant, else the one for everybody.
func (s *Server) visible(variants, types []string) []*xds.Resource {
	type name struct{ typ, name string }
	rank := func(r *xds.Resource) int {
		if r.Variant == "" {
			return len(variants)
		}
		return slices.Index(variants, r.Variant)
	}
	best := map[name]*xds.Resource{}
	for r := range s.pipeline.Cache().All() {
		if rank(r) < 0 || len(types) > 0 && !slices.Contains(types, r.Type) {
			continue
		}
		at := name{r.Type, r.Name}
		if old := best[at]; old == nil || rank(r) < rank(old) {
			best[at] = r
		}
	}
	out := make([]*xds.Resource, 0, len(best))
	for _, r := range best {
		out = append(out, r)
	}
	slices.SortFunc(out, func(a, b *xds.Resource) int {
		return cmp.Or(cmp.Compare(order(a.Type), order(b.Type)), cmp.Compare(a.Type, b.Type), cmp.Compare(a.Name, b.Name))
	})
	return out
}

// order is that of a request on its way out.
func order(typ string) int {
	return slices.Index([]string{translate.RuntimeType, translate.HostType, translate.ListenerType, translate.RoutesType, translate.ClusterType, translate.EndpointsType, translate.SecretType}, typ)
}

func resourcePB(r *xds.Resource) (*apipb.Resource, error) {
	m, err := r.Message().UnmarshalNew()
	if err != nil {
		return nil, status.Errorf(codes.Internal, "decode %s: %v", r.Key, err)
	}
	if s, ok := m.(*tlsv3.Secret); ok && s.GetTlsCertificate() != nil {
		s.GetTlsCertificate().PrivateKey = nil // nobody needs to see it
	}
	json, err := protojson.Marshal(m)
	if err != nil {
		return nil, status.Errorf(codes.Internal, "write %s as JSON: %v", r.Key, err)
	}
	return &apipb.Resource{Type: r.Type, Name: r.Name, Version: r.Version, Origins: originsPB(r.Origins), Json: json}, nil
}
