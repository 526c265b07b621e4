package kubernetes

import (
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/heddle-mesh/heddle/controlplane/mesh"
	"github.com/heddle-mesh/heddle/discovery/manifest"
)

// metaOf is the meta data that the mesh keeps of an object.
func metaOf(kind mesh.Kind, o metav1.Object) mesh.Meta {
	m := mesh.Meta{
		Ref:        mesh.Ref{Kind: kind, Name: mesh.Name{Namespace: o.GetNamespace(), Name: o.GetName()}},
		Generation: max(1, o.GetGeneration()), // not all kinds of Kubernetes count
	}
	if at := o.GetCreationTimestamp(); !at.IsZero() {
		m.Created = at.UnixNano()
	}
	return m
}

// service converts a Service. Every one has a place in the mesh, those without pods of
// ours too: the proxies of callers must know where its address leads. Ports of other
// protocols than TCP are left out, as they do not pass the proxies.
func service(s *corev1.Service) *mesh.Service {
	out := &mesh.Service{
		Meta:   metaOf(mesh.KindService, s),
		Sliced: true, PublishNotReady: s.Spec.PublishNotReadyAddresses,
		NodeLocal: s.Spec.InternalTrafficPolicy != nil && *s.Spec.InternalTrafficPolicy == corev1.ServiceInternalTrafficPolicyLocal,
		Prefer:    manifest.TrafficDistribution(deref(s.Spec.TrafficDistribution)),
	}
	if s.Spec.Type == corev1.ServiceTypeExternalName {
		out.ExternalName = s.Spec.ExternalName
		return out
	}
	out.Headless = s.Spec.ClusterIP == corev1.ClusterIPNone
	if !out.Headless {
		ips := s.Spec.ClusterIPs
		if len(ips) == 0 && s.Spec.ClusterIP != "" {
			ips = []string{s.Spec.ClusterIP}
		}
		out.VirtualIPs = oneOfEach(addresses(ips))
	}
	for _, p := range s.Spec.Ports {
		if !isTCP(p.Protocol) {
			continue
		}
		out.Ports = append(out.Ports, mesh.ServicePort{Name: p.Name, Port: uint16(p.Port),
			Protocol: manifest.PortProtocol(deref(p.AppProtocol), p.Name)})
	}
	return out
}

func isTCP(p corev1.Protocol) bool { return p == "" || p == corev1.ProtocolTCP }

// addresses reads IP addresses; what is none is left out.
func addresses(texts []string) []netip.Addr {
	var out []netip.Addr
	for _, text := range texts {
		if a, err := netip.ParseAddr(text); err == nil {
			out = append(out, a)
		}
	}
	return out
}

// oneOfEach keeps the first address of each family, which is as many as the mesh uses.
func oneOfEach(all []netip.Addr) []netip.Addr {
	var out []netip.Addr
	for _, a := range all {
		if !slices.ContainsFunc(out, func(b netip.Addr) bool { return a.Is4() == b.Is4() }) {
			out = append(out, a)
		}
	}
	return out
}

func deref(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}
