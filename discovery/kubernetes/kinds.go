package kubernetes

import (
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/heddle-mesh/heddle/controlplane/mesh"
)

// kinds are the tables of all that is watched.
type kinds struct {
	services   *table[*mesh.Service]
	slices     *table[*slice]
	pods       *table[*pod]
	zones      *table[string] // of nodes
	namespaces *table[bool]   // whether they are being deleted
	documents  map[mesh.Kind]*table[*document]
	ingresses  *table[*mesh.Ingress] // nil without a gateway
}

// openKinds makes the tables, and a watch of each.
func (s *Source) openKinds() {
	wake := func() {
		select {
		case s.dirty <- struct{}{}:
		default: // it is known already
		}
	}
	k := &s.kinds
	k.services = newTable(typed("/api/v1/services", func() runtime.Object { return &corev1.ServiceList{} }, service),
		func(a, b *mesh.Service) bool { return same(a, b) }, wake)
	k.slices = newTable(typed("/apis/discovery.k8s.io/v1/endpointslices", func() runtime.Object { return &discoveryv1.EndpointSliceList{} }, endpointSlice), sameSlice, wake)
	k.pods = newTable(typed("/api/v1/pods", func() runtime.Object { return &corev1.PodList{} },
		func(p *corev1.Pod) *pod { return podOf(p, s.config.Options.TrustDomain, s.config.Gateway) }), samePod, wake)
	k.zones = newTable(metadata("/api/v1/nodes", func(n *metav1.PartialObjectMetadata) any {
		if zone := n.Labels[corev1.LabelTopologyZone]; zone != "" {
			return zone
		}
		return nil
	}), equal[string], wake)
	k.namespaces = newTable(metadata("/api/v1/namespaces", func(n *metav1.PartialObjectMetadata) any {
		return n.DeletionTimestamp != nil
	}), equal[bool], wake)
	s.watched = []*watched{watching(k.services), watching(k.slices), watching(k.pods), watching(k.zones), watching(k.namespaces)}
	k.documents = map[mesh.Kind]*table[*document]{}
	for _, d := range documentKinds {
		convert := func(o *documentObject) *document {
			return documentOf(d.kind, d.version.String(), o, s.config.Options)
		}
		r := typed(fmt.Sprintf("/apis/%s/%s", d.version, d.resource), func() runtime.Object { return &documentList{} }, convert)
		r.one, r.many = plainJSON, plainJSON
		k.documents[d.kind] = newTable(r, sameDocument, wake)
		w := watching(k.documents[d.kind])
		w.optional = true
		s.watched = append(s.watched, w)
	}
	if s.config.Gateway != (mesh.Name{}) {
		s.openIngresses(wake)
	}
}

// openIngresses makes what is needed for a gateway, and puts it into the mesh.
func (s *Source) openIngresses(wake func()) {
	gateway := s.config.Gateway
	s.kinds.ingresses = newTable(typed("/apis/networking.k8s.io/v1/ingresses", func() runtime.Object { return &networkingv1.IngressList{} },
		func(o *networkingv1.Ingress) *mesh.Ingress { return Ingress(o, gateway) }),
		func(a, b *mesh.Ingress) bool { return same(a, b) }, wake)
	s.watched = append(s.watched, watching(s.kinds.ingresses))
	s.certificates = newCertificates(s.client, s.config.Secrets, wake, s.config.Log)
	s.view.setGateway(gateway)
}

// typed is a resource whose objects are converted by one function, nil for nothing.
func typed[O any, V any](path string, list func() runtime.Object, convert func(O) *V) *resource {
	return &resource{path: path, one: protobuf, many: protobuf, list: list, convert: func(o runtime.Object) any {
		if v := convert(any(o).(O)); v != nil {
			return v
		}
		return nil
	}}
}

// metadata is a resource of whose objects the meta data is read only: the status of nodes
// changes all the time.
func metadata(path string, convert func(*metav1.PartialObjectMetadata) any) *resource {
	return &resource{path: path, one: metadataOne, many: metadataMany,
		list:    func() runtime.Object { return &metav1.PartialObjectMetadataList{} },
		convert: func(o runtime.Object) any { return convert(o.(*metav1.PartialObjectMetadata)) },
	}
}

func equal[V comparable](a, b V) bool { return a == b }

// name is what people call the resource.
func (r *resource) name() string { return r.path[strings.LastIndexByte(r.path, '/')+1:] }

// look takes what has changed in the tables into the view.
func (s *Source) look() {
	k := &s.kinds
	each(k.zones, s.view.setZone)
	each(k.namespaces, s.view.setNamespace)
	each(k.services, s.view.setService)
	each(k.pods, s.view.setPod)
	each(k.slices, s.view.setSlice)
	if k.ingresses != nil {
		each(k.ingresses, s.view.setIngress)
		s.certificates.want(secretsOf(s.view.ingresses))
		for _, u := range s.certificates.take() {
			s.view.setCertificate(u)
		}
	}
	for kind, documents := range k.documents {
		each(documents, func(u update[*document]) {
			ref := mesh.Ref{Kind: kind, Name: u.name}
			switch {
			case u.gone:
				s.readable(ref)
				s.view.setDocument(ref, nil)
			case u.value.err != nil:
				s.unreadable(ref, u.value)
			default:
				s.readable(ref)
				s.view.setDocument(ref, u.value.object)
			}
		})
	}
}

// unreadable takes a document that cannot be read. Its last good value stays in force; a
// policy that has none, as when the control plane starts, must not be an open door.
func (s *Source) unreadable(ref mesh.Ref, d *document) {
	why := Rejection{d.generation, d.err}
	if s.submitter.inForce[ref] == nil || s.closed[ref] {
		if policy, ok := d.closed.(*mesh.AuthorizationPolicy); ok {
			s.closed[ref] = true
			s.view.setDocument(ref, policy)
			why.Err = fmt.Errorf("%w; until it is mended it %s", d.err, closedMeans(policy))
		}
	}
	s.submitter.reject(ref, why)
}

// closedMeans says what a policy of manifest.ClosedPolicy does.
func closedMeans(p *mesh.AuthorizationPolicy) string {
	to := "any service of its namespace"
	if len(p.Targets) > 0 {
		var names []string
		for _, t := range p.Targets {
			names = append(names, t.Name)
		}
		to = "service " + strings.Join(names, ", ")
	}
	if p.Deny {
		return "refuses all calls to " + to
	}
	return "allows no call to " + to
}

// readable forgets what an object was rejected for: it is another, or gone.
func (s *Source) readable(ref mesh.Ref) {
	delete(s.closed, ref)
	s.submitter.readable(ref)
}

func each[V any](t *table[V], do func(update[V])) {
	for _, u := range t.take() {
		do(u)
	}
}
