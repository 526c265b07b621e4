package attest

import (
	"context"
	"fmt"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"

	"github.com/heddle-mesh/heddle/identity/spiffeid"
)

// SVID is the attestor for renewals: the peer of a TLS connection proves an identity
// of trustDomain by a valid SVID, and gets that identity again and no other. The SVID is
// verified at every call, since a connection may outlive it.
func SVID(bundle x509bundle.Source, trustDomain string) Attestor {
	return func(_ context.Context, e Evidence) (spiffeid.ID, error) {
		if len(e.Certificates) == 0 {
			return spiffeid.ID{}, ErrNotMine
		}
		verified, _, err := x509svid.Verify(e.Certificates, bundle)
		if err != nil {
			return spiffeid.ID{}, fmt.Errorf("%w: client certificate: %v; use a join token to get a new SVID", ErrUnauthenticated, err)
		}
		id, err := spiffeid.Parse(verified.String())
		if err != nil {
			return spiffeid.ID{}, fmt.Errorf("%w: client certificate: %v", ErrUnauthenticated, err)
		}
		if id.TrustDomain() != trustDomain {
			return spiffeid.ID{}, fmt.Errorf("%w: client certificate is of trust domain %s, not %s", ErrUnauthenticated, id.TrustDomain(), trustDomain)
		}
		if !e.Requested.IsZero() && e.Requested != id {
			return spiffeid.ID{}, fmt.Errorf("%w: %s may renew its own SVID only, and asked for %s; use a join token for that one", ErrDenied, id, e.Requested)
		}
		return id, nil
	}
}
