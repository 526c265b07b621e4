// Package spiffeid gives the SPIFFE IDs of mesh workloads.
//
// A workload's ID has one fixed shape, spiffe://TRUST_DOMAIN/ns/NAMESPACE/sa/SERVICE,
// so that a policy, a certificate and an endpoint name the same caller in the same
// way on one machine and on Kubernetes. The rules for trust domains and path segments
// are those of the SPIFFE-ID standard, section 2, as go-spiffe enforces them.
package spiffeid

import (
	"fmt"
	"strings"

	gospiffe "github.com/spiffe/go-spiffe/v2/spiffeid"
)

// ID is the identity of a workload. It is comparable, and a value that is not zero is
// always well formed: it comes from New or Parse only.
type ID struct {
	trustDomain, namespace, serviceAccount string
}

// New makes an ID of its three parts. The error names the part that SPIFFE forbids.
func New(trustDomain, namespace, serviceAccount string) (ID, error) {
	if _, err := gospiffe.TrustDomainFromString(trustDomain); err != nil {
		return ID{}, fmt.Errorf("trust domain %q: %w", trustDomain, err)
	}
	for _, part := range []struct{ what, value string }{{"namespace", namespace}, {"service account", serviceAccount}} {
		if part.value == "" {
			return ID{}, fmt.Errorf("%s: must not be empty", part.what)
		}
		if err := gospiffe.ValidatePathSegment(part.value); err != nil {
			return ID{}, fmt.Errorf("%s %q: %w", part.what, part.value, err)
		}
	}
	return ID{trustDomain, namespace, serviceAccount}, nil
}

// Parse reads an ID from its URI form.
func Parse(uri string) (ID, error) {
	id, err := gospiffe.FromString(uri)
	if err != nil {
		return ID{}, fmt.Errorf("SPIFFE ID %q: %w", uri, err)
	}
	segments := strings.Split(id.Path(), "/")
	if len(segments) != 5 || segments[1] != "ns" || segments[3] != "sa" {
		return ID{}, fmt.Errorf("SPIFFE ID %q: not of the form spiffe://TRUST_DOMAIN/ns/NAMESPACE/sa/SERVICE", uri)
	}
	return ID{id.TrustDomain().Name(), segments[2], segments[4]}, nil
}

// TrustDomain is the name of the trust domain that vouches for the ID.
func (id ID) TrustDomain() string { return id.trustDomain }

// Namespace is the namespace of the workload.
func (id ID) Namespace() string { return id.namespace }

// ServiceAccount is the account the workload runs as; standalone, its service's name.
func (id ID) ServiceAccount() string { return id.serviceAccount }

// IsZero reports whether the ID was never set.
func (id ID) IsZero() bool { return id == ID{} }

// String is the URI form, or "" for the zero ID.
func (id ID) String() string {
	if id.IsZero() {
		return ""
	}
	return "spiffe://" + id.trustDomain + "/ns/" + id.namespace + "/sa/" + id.serviceAccount
}

// MarshalText makes the ID its URI in JSON and in logs.
func (id ID) MarshalText() ([]byte, error) { return []byte(id.String()), nil }
