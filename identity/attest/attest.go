package attest

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"

	"github.com/heddle-mesh/heddle/identity/spiffeid"
)

// Evidence is all that is known about who asks.
type Evidence struct {
	Peer         *PeerCred           // the process at the other end of a Unix socket; nil on TCP
	Certificates []*x509.Certificate // what the peer presented by TLS, leaf first; not to be trusted before it is verified
	Token        JoinToken           // "" when none was sent
	Requested    spiffeid.ID         // what it says it is; zero when it leaves that to the attestor

	ServiceAccountToken ServiceAccountToken // a Kubernetes pod's; "" when none was sent
}

// ServiceAccountToken is a token that Kubernetes gave a pod (projected, for one audience).
// It prints as what it is only; Reveal gives the text.
type ServiceAccountToken string

// Reveal returns the token's text, for who checks it.
func (t ServiceAccountToken) Reveal() string { return string(t) }

// Format keeps the token out of logs and errors whatever the verb.
func (t ServiceAccountToken) Format(f fmt.State, _ rune) { fmt.Fprint(f, "service-account-token") }

// LogValue does the same for slog.
func (t ServiceAccountToken) LogValue() slog.Value { return slog.StringValue(fmt.Sprint(t)) }

// MarshalText does the same for JSON and YAML.
func (t ServiceAccountToken) MarshalText() ([]byte, error) { return fmt.Appendf(nil, "%v", t), nil }

// Attested is who the evidence proves somebody to be.
type Attested struct {
	ID spiffeid.ID
	// Token names the join token that the proof goes back to, over any number of renewals;
	// "" for none.
	Token string
}

// Attestor tells who the evidence proves somebody to be. ErrNotMine means that the
// evidence is not of its kind; any other error is a refusal that ends the list.
type Attestor func(context.Context, Evidence) (Attested, error)

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
	return func(ctx context.Context, e Evidence) (Attested, error) {
		for _, attestor := range attestors {
			who, err := attestor(ctx, e)
			if errors.Is(err, ErrNotMine) {
				continue
			}
			return who, err
		}
		return Attested{}, fmt.Errorf("%w: give a join token (heddle token create) or a valid SVID", ErrUnauthenticated)
	}
}
