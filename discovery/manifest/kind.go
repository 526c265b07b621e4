package manifest

import (
	"reflect"

	"go.yaml.in/yaml/v3"

	"github.com/heddle-mesh/heddle/controlplane/mesh"
)

// The API groups of the documents.
const (
	coreV1    = "v1"
	gatewayV1 = "gateway.networking.k8s.io/v1"
	heddleV1  = "mesh.heddle.dev/v1alpha1"
)

// kind is how one kind of document is read.
type kind struct {
	apiVersion string
	spec       reflect.Type // a struct; its pointer is a spec
	name       string       // the rule of textRules for metadata.name
	namespaced bool
	registered bool // made by registration only
}

var kinds = map[mesh.Kind]kind{
	mesh.KindService:             {coreV1, reflect.TypeFor[serviceSpec](), "label1035", true, false},
	mesh.KindHTTPRoute:           {gatewayV1, reflect.TypeFor[httpRouteSpec](), "subdomain", true, false},
	mesh.KindGRPCRoute:           {gatewayV1, reflect.TypeFor[grpcRouteSpec](), "subdomain", true, false},
	mesh.KindAuthorizationPolicy: {heddleV1, reflect.TypeFor[policySpec](), "subdomain", true, false},
	mesh.KindMeshConfig:          {heddleV1, reflect.TypeFor[configSpec](), "label1123", false, false},
	mesh.KindWorkload:            {heddleV1, reflect.TypeFor[workloadSpec](), "subdomain", true, true},
}

// spec is the part of a document that differs by kind.
type spec interface {
	// checkSpec notes what is wrong beyond single fields, given the metadata.
	checkSpec(c cursor, m metadata)
	// build makes the value of the mesh. The spec is free of errors.
	build(meta mesh.Meta, m metadata, o Options) mesh.Object
}

// document is the shape of every object, as in Kubernetes.
type document struct {
	APIVersion string   `json:"apiVersion" need:"the version of the API"`
	Kind       string   `json:"kind" need:"the kind"`
	Metadata   metadata `json:"metadata" need:"the name"`
	Spec       spec     `json:"spec" need:"what the object is to be"`
	Status     ignored  `json:"-" field:"status"`
}

type metadata struct {
	Name        string            `json:"name" need:"a name"`
	Namespace   string            `json:"namespace,omitempty" is:"label1123"`
	Labels      map[string]string `json:"labels,omitempty" keys:"labelKey" is:"labelValue"`
	Annotations map[string]string `json:"annotations,omitempty" keys:"labelKey" is:"free" max:"262144"`

	// What a server adds.
	Generation        ignored `json:"-" field:"generation"`
	CreationTimestamp ignored `json:"-" field:"creationTimestamp"`
	ResourceVersion   ignored `json:"-" field:"resourceVersion"`
	UID               ignored `json:"-" field:"uid"`
	ManagedFields     ignored `json:"-" field:"managedFields"`
}

// peekRef is what a document says it is, before that is checked.
func (k kind) peekRef(at cursor, o Options) mesh.Ref {
	text := func(c cursor) string {
		if c.node.Kind != yaml.ScalarNode || isNull(c.node) {
			return ""
		}
		return clip(c.node.Value)
	}
	m := at.at("metadata")
	ref := mesh.Ref{Kind: mesh.Kind(text(at.at("kind"))), Name: mesh.Name{Namespace: text(m.at("namespace")), Name: text(m.at("name"))}}
	if ref.Namespace == "" && k.namespaced {
		ref.Namespace = o.DefaultNamespace
	}
	return ref
}

func (k kind) checkName(at cursor, d *document) {
	if name := d.Metadata.Name; name != "" {
		if wrong := textRules[k.name](name); wrong != "" {
			at.at("name").errorf("%s", wrong)
		}
	} else if at.at("name").node != at.node {
		at.at("name").errorf("is empty; give a name")
	}
	if !k.namespaced && d.Metadata.Namespace != "" {
		at.at("namespace").errorf("a %s belongs to no namespace; remove the field", d.Kind)
	}
}
