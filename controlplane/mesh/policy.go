package mesh

import "github.com/heddle-mesh/heddle/identity/spiffeid"

// AuthorizationPolicy says which callers may reach services. Callers are named by the
// identity in their certificate and by nothing they could make up.
//
// The order is: a matching Deny refuses; else, when any Allow policy targets the
// service, one of them must match; else the caller is let in, as long as it is of the
// mesh at all.
type AuthorizationPolicy struct {
	Meta
	// Targets are the services whose workloads enforce the policy. Empty = every
	// workload of the namespace.
	Targets []Name
	Deny    bool
	Rules   []AuthorizationRule
}

// AuthorizationRule matches a request when its caller and its port match.
type AuthorizationRule struct {
	From  []Caller // empty = any caller of the mesh
	Ports []uint16 // of the service; empty = every port
}

// Caller matches identities. Exactly one field is set.
type Caller struct {
	Identity  spiffeid.ID
	Namespace string // every identity of the trust domain in it
}
