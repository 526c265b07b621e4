package controlplane

import (
	"context"
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/heddle-mesh/heddle/controlplane/mesh"
	"github.com/heddle-mesh/heddle/controlplane/xds"
	"github.com/heddle-mesh/heddle/identity/spiffeid"
)

// AgentSuffix ends the node id of an agent's own stream, beside that of its Envoy.
const AgentSuffix = "/agent"

// Connect decides as which proxy the client of an xDS stream is served. The node says
// which workload it stands beside ("NAMESPACE/WORKLOAD"); what it may be is what its
// certificate says. Peer gives the verified identity of a call's client. With scopes the
// proxy of a captured workload holds what its account uses; nil: everything.
func (p *Pipeline) Connect(peer func(context.Context) (spiffeid.ID, bool), scopes *Scopes) func(context.Context, *corev3.Node) (xds.Proxy, error) {
	return func(ctx context.Context, node *corev3.Node) (xds.Proxy, error) {
		id, ok := peer(ctx)
		if !ok {
			return xds.Proxy{}, status.Error(codes.Unauthenticated, "configuration is given only to holders of an SVID of the mesh")
		}
		namespace, name, ok := strings.Cut(strings.TrimSuffix(node.GetId(), AgentSuffix), "/")
		if !ok {
			return xds.Proxy{}, status.Errorf(codes.InvalidArgument, "node id %.100q: want NAMESPACE/WORKLOAD", node.GetId())
		}
		w, ok := p.Snapshot().Workloads.Lookup(mesh.Name{Namespace: namespace, Name: name})
		if !ok {
			return xds.Proxy{}, status.Errorf(codes.FailedPrecondition, "workload %s/%s is not registered", namespace, name)
		}
		if w.Identity != id {
			return xds.Proxy{}, status.Errorf(codes.PermissionDenied, "workload %s is of %s, and the certificate of %s", w.Name, w.Identity, id)
		}
		proxy := xds.Proxy{
			ID: node.GetId(), Variants: Variants(w), Sharing: w.Account().String(),
			Attributes: map[string]string{"namespace": namespace, "workload": name, "zone": w.Zone},
		}
		// Without capture a proxy's listeners say what it uses, and a gateway's Ingresses do.
		if scopes != nil && w.Capture == mesh.Transparent {
			proxy.OnDemand, proxy.Groups = true, scopes.Groups(proxy.Sharing)
		}
		return proxy, nil
	}
}
