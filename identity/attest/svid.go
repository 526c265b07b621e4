package attest

import (
	"context"
	"fmt"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"

	"github.com/heddle-mesh/heddle/identity/spiffeid"
)

// SVID is the attestor for renewals: the peer of a TLS connection proves an identity
// of trustDomain by a valid SVID, and gets that identity again and no other. The SVID is
// verified at every call, since a connection may outlive it. An SVID that goes back to a
// revoked join token is refused.
func SVID(bundle x509bundle.Source, trustDomain string, tokens *Tokens) Attestor {
	return func(_ context.Context, e Evidence) (Attested, error) {
		if len(e.Certificates) == 0 {
			return Attested{}, ErrNotMine
		}
		verified, _, err := x509svid.Verify(e.Certificates, bundle)
		if err != nil {
			return Attested{}, fmt.Errorf("%w: client certificate: %v; use a join token to get a new SVID", ErrUnauthenticated, err)
		}
		id, err := spiffeid.Parse(verified.String())
		if err != nil {
			return Attested{}, fmt.Errorf("%w: client certificate: %v", ErrUnauthenticated, err)
		}
		if id.TrustDomain() != trustDomain {
			return Attested{}, fmt.Errorf("%w: client certificate is of trust domain %s, not %s", ErrUnauthenticated, id.TrustDomain(), trustDomain)
		}
		if !e.Requested.IsZero() && e.Requested != id {
			return Attested{}, fmt.Errorf("%w: %s may renew its own SVID only, and asked for %s; use a join token for that one", ErrDenied, id, e.Requested)
		}
		token := TokenOf(e.Certificates[0])
		if at, revoked := tokens.revokedAt(token); revoked {
			return Attested{}, fmt.Errorf("%w: the SVID of %s goes back to join token %s, which was revoked at %s: it is not renewed; join with a new token (heddle token create)",
				ErrDenied, id, token, at.UTC().Format(time.RFC3339))
		}
		return Attested{id, token}, nil
	}
}
