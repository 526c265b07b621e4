package attest

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"

	"github.com/heddle-mesh/heddle/identity/spiffeid"
)

// Evidence is all that is known about who asks.
type Evidence struct {
	Peer         *PeerCred           // the process at the other end of a Unix socket; nil on TCP
	Certificates []*x509.Certificate // what the peer presented by TLS, leaf first; not to be trusted before it is verified
	Token        JoinToken           // "" when none was sent
	Requested    spiffeid.ID         // what it says it is; zero when it leaves that to the attestor
}

// Attestor tells the identity that the evidence proves. ErrNotMine means that the
// evidence is not of its kind; any other error is a refusal that ends the list.
type Attestor func(context.Context, Evidence) (spiffeid.ID, error)

var (
	// ErrNotMine passes the evidence on to the next attestor.
	ErrNotMine = errors.New("no evidence of this kind")
	// ErrUnauthenticated is the kind of error of evidence that proves nothing.
	ErrUnauthenticated = errors.New("not authenticated")
	// ErrDenied is the kind of error of good evidence, but for something else.
	ErrDenied = errors.New("not allowed")
)

// First tries attestors in order.
func First(attestors ...Attestor) Attestor {
	return func(ctx context.Context, e Evidence) (spiffeid.ID, error) {
		for _, attestor := range attestors {
			id, err := attestor(ctx, e)
			if errors.Is(err, ErrNotMine) {
				continue
			}
			return id, err
		}
		return spiffeid.ID{}, fmt.Errorf("%w: give a join token (heddle token create) or a valid SVID", ErrUnauthenticated)
	}
}
