package mesh

import (
	"cmp"
	"fmt"
)

// Kind is the kind of an object, spelled as in its manifest.
type Kind string

// The kinds that the model knows.
const (
	KindService             Kind = "Service"
	KindEndpointSlice       Kind = "EndpointSlice"
	KindWorkload            Kind = "Workload"
	KindHTTPRoute           Kind = "HTTPRoute"
	KindGRPCRoute           Kind = "GRPCRoute"
	KindAuthorizationPolicy Kind = "AuthorizationPolicy"
	KindMeshConfig          Kind = "MeshConfig"
	KindGateway             Kind = "Gateway"
	KindIngress             Kind = "Ingress"
	KindCertificate         Kind = "Secret" // of a Secret the mesh keeps the certificate
)

// Name is the namespace and the name of an object.
type Name struct{ Namespace, Name string }

// String is NAMESPACE/NAME.
func (n Name) String() string { return n.Namespace + "/" + n.Name }

// Compare orders names by namespace, then name.
func (n Name) Compare(o Name) int {
	return cmp.Or(cmp.Compare(n.Namespace, o.Namespace), cmp.Compare(n.Name, o.Name))
}

// Ref names one object of the mesh.
type Ref struct {
	Kind Kind
	Name
}

// String is KIND NAMESPACE/NAME, as messages to people name an object.
func (r Ref) String() string { return fmt.Sprintf("%s %s", r.Kind, r.Name) }

// Compare orders references by kind, namespace, name.
func (r Ref) Compare(o Ref) int {
	return cmp.Or(cmp.Compare(r.Kind, o.Kind), r.Name.Compare(o.Name))
}

// Meta is what every object carries.
type Meta struct {
	Ref
	// Generation counts the changes of the object's spec, from 1.
	Generation int64
	// Created is when the object first appeared, in Unix nanoseconds. Gateway API
	// orders conflicting routes by it, the oldest first.
	Created int64
}

// Header gives the meta data itself; it makes every kind that embeds Meta an Object.
func (m *Meta) Header() *Meta { return m }

// Object is any value of the model: *Service, *EndpointSlice, *Workload, *Route, *AuthorizationPolicy,
// *MeshConfig, *Gateway, *Ingress or *Certificate.
type Object interface{ Header() *Meta }

// Change is one step of a source: an object's new value, or its end.
type Change struct {
	Ref Ref
	// Object is the new value; nil means that the object is gone.
	Object Object
}

// Set is the change that makes o the current value of its reference.
func Set(o Object) Change { return Change{Ref: o.Header().Ref, Object: o} }

// Remove is the change that ends the object r names.
func Remove(r Ref) Change { return Change{Ref: r} }
