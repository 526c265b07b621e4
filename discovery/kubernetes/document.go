package kubernetes

import (
	"encoding/json"
	"errors"
	"fmt"
	"reflect"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/heddle-mesh/heddle/controlplane/mesh"
	"github.com/heddle-mesh/heddle/discovery/manifest"
)

// documentKinds are the kinds that discovery/manifest reads. A cluster need not have them.
var documentKinds = []struct {
	version  schema.GroupVersion
	resource string
	kind     mesh.Kind
}{
	{schema.GroupVersion{Group: "gateway.networking.k8s.io", Version: "v1"}, "httproutes", mesh.KindHTTPRoute},
	{schema.GroupVersion{Group: "gateway.networking.k8s.io", Version: "v1"}, "grpcroutes", mesh.KindGRPCRoute},
	{schema.GroupVersion{Group: "mesh.heddle.dev", Version: "v1alpha1"}, "authorizationpolicies", mesh.KindAuthorizationPolicy},
	{schema.GroupVersion{Group: "mesh.heddle.dev", Version: "v1alpha1"}, "meshconfigs", mesh.KindMeshConfig},
}

// documentObject is an object of such a kind as it comes: its spec is not looked into.
type documentObject struct {
	metav1.TypeMeta
	metav1.ObjectMeta `json:"metadata"`
	Spec              json.RawMessage `json:"spec"`
}

// DeepCopyObject implements runtime.Object. Objects that were read do not change.
func (d *documentObject) DeepCopyObject() runtime.Object { return d }

type documentList struct {
	metav1.TypeMeta
	metav1.ListMeta `json:"metadata"`
	Items           []documentObject `json:"items"`
}

// DeepCopyObject implements runtime.Object. Lists that were read do not change.
func (l *documentList) DeepCopyObject() runtime.Object { return l }

// document is what is kept of one: its value, or what is wrong with it.
type document struct {
	object     mesh.Object // nil where err is not
	generation int64
	err        error
	closed     mesh.Object // what is in force where err is and there is no last good value; nil: nothing
}

func sameDocument(a, b *document) bool {
	if a.err != nil || b.err != nil {
		return a.err != nil && b.err != nil && a.generation == b.generation && a.err.Error() == b.err.Error()
	}
	return same(a.object, b.object)
}

func same(a, b mesh.Object) bool { return reflect.DeepEqual(a, b) }

// documentOf reads an object by what a user writes of it, which is the same on one machine
// and here. nil is for a route that attaches to gateways only: it is not ours to read.
func documentOf(kind mesh.Kind, version string, d *documentObject, options manifest.Options) *document {
	out := &document{generation: d.Generation}
	spec, ours := d.Spec, true
	if kind == mesh.KindHTTPRoute || kind == mesh.KindGRPCRoute {
		if spec, ours = meshParents(spec); !ours {
			return nil
		}
	}
	// Labels and annotations are checked by the API server and say nothing to the mesh.
	type name struct {
		Namespace string `json:"namespace,omitempty"`
		Name      string `json:"name"`
	}
	text, err := json.Marshal(struct {
		APIVersion string          `json:"apiVersion"`
		Kind       mesh.Kind       `json:"kind"`
		Metadata   name            `json:"metadata"`
		Spec       json.RawMessage `json:"spec,omitempty"`
	}{version, kind, name{d.Namespace, d.Name}, spec})
	if err != nil {
		out.err = fmt.Errorf("write %s %s/%s as JSON: %w", kind, d.Namespace, d.Name, err)
		return out
	}
	out.object, out.err = parse(text, options)
	switch {
	case out.err == nil:
		*out.object.Header() = metaOf(kind, d)
	case kind == mesh.KindAuthorizationPolicy:
		policy := manifest.ClosedPolicy(mesh.Name{Namespace: d.Namespace, Name: d.Name}, spec)
		policy.Meta = metaOf(kind, d)
		out.closed = policy
	}
	return out
}

// parse reads one document. Its lines are those of our JSON, which nobody has seen.
func parse(text []byte, options manifest.Options) (mesh.Object, error) {
	objects, err := manifest.Parse("", text, options)
	var list manifest.Errors
	if errors.As(err, &list) {
		for _, e := range list {
			e.Line = 0
		}
		return nil, list
	}
	if err != nil {
		return nil, err
	}
	if len(objects) != 1 {
		return nil, fmt.Errorf("read as %d objects; want one", len(objects))
	}
	return objects[0].Object, nil
}

// meshParents leaves out of a route's spec the parents that are no Services: a Gateway's
// controller reads those. A route that has others only is not for the mesh. What is not of
// the form of a route is left to the parser, which says so.
func meshParents(spec json.RawMessage) (_ json.RawMessage, ours bool) {
	var fields map[string]json.RawMessage
	var parents, services []json.RawMessage
	if json.Unmarshal(spec, &fields) != nil || json.Unmarshal(fields["parentRefs"], &parents) != nil || len(parents) == 0 {
		return spec, true
	}
	for _, p := range parents {
		var ref struct {
			Kind *string `json:"kind"`
		}
		// The API server's default is a Gateway.
		if json.Unmarshal(p, &ref) != nil || ref.Kind != nil && *ref.Kind == string(mesh.KindService) {
			services = append(services, p)
		}
	}
	switch len(services) {
	case 0:
		return nil, false
	case len(parents):
		return spec, true
	}
	var err error
	if fields["parentRefs"], err = json.Marshal(services); err != nil {
		return spec, true
	}
	if out, err := json.Marshal(fields); err == nil {
		return out, true
	}
	return spec, true
}
