package kubernetes

import (
	"slices"

	discoveryv1 "k8s.io/api/discovery/v1"

	"github.com/heddle-mesh/heddle/controlplane/mesh"
)

// slice is what is kept of an EndpointSlice: all that it says, and which pods it means.
// What of it is in the mesh depends on those pods, see view.
type slice struct {
	*mesh.EndpointSlice
	uids []string // of the endpoints' pods; "" where the slice does not say
}

func sameSlice(a, b *slice) bool {
	return slices.Equal(a.uids, b.uids) && same(a.EndpointSlice, b.EndpointSlice)
}

// endpointSlice converts an EndpointSlice, or gives nil for one that says nothing to us:
// of no service, or of names instead of addresses.
func endpointSlice(s *discoveryv1.EndpointSlice) *slice {
	name := s.Labels[discoveryv1.LabelServiceName]
	if name == "" || s.AddressType == discoveryv1.AddressTypeFQDN {
		return nil
	}
	out := &slice{EndpointSlice: &mesh.EndpointSlice{Meta: metaOf(mesh.KindEndpointSlice, s), Service: name}}
	for _, p := range s.Ports {
		if p.Port == nil || p.Protocol != nil && !isTCP(*p.Protocol) { // without a number: "all ports", which no Service makes
			continue
		}
		out.Ports = append(out.Ports, mesh.EndpointPort{Name: deref(p.Name), Number: uint16(*p.Port)})
	}
	for i := range s.Endpoints {
		e, uid := endpoint(s.Namespace, &s.Endpoints[i])
		if len(e.Addresses) > 0 {
			out.Endpoints, out.uids = append(out.Endpoints, e), append(out.uids, uid)
		}
	}
	return out
}

// endpoint converts one endpoint. Conditions that are not said mean what the API says
// they do: ready, and serving like ready. One that is ending is not ready for new requests,
// also where its Service publishes what is not ready: there the API calls all of them ready.
func endpoint(namespace string, e *discoveryv1.Endpoint) (out mesh.Endpoint, uid string) {
	ready := isTrue(e.Conditions.Ready, true)
	out = mesh.Endpoint{
		Addresses: addresses(e.Addresses), Hostname: deref(e.Hostname), Zone: deref(e.Zone), Node: deref(e.NodeName),
		Ready: ready && !isTrue(e.Conditions.Terminating, false), Serving: isTrue(e.Conditions.Serving, ready),
	}
	if ref := e.TargetRef; ref != nil && ref.Kind == "Pod" && (ref.Namespace == "" || ref.Namespace == namespace) {
		out.Workload, uid = ref.Name, string(ref.UID)
	}
	return out, uid
}

func isTrue(b *bool, unsaid bool) bool {
	if b == nil {
		return unsaid
	}
	return *b
}
