package kubernetes

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/heddle-mesh/heddle/identity/ca"
)

// IssuerSecret is a Secret of type kubernetes.io/tls with an authority that somebody else
// makes and renews, as cert-manager does for a Certificate with isCA: true.
type IssuerSecret struct {
	Client          *Client
	Namespace, Name string
	Log             *slog.Logger
}

// lookForIssued is how often a renewal is looked for; its SVIDs' lives are longer by far.
const lookForIssued = 10 * time.Second

// Read gives the authority, and the version of the Secret that it is from.
func (s IssuerSecret) Read(ctx context.Context) (*ca.Issued, string, error) {
	data, version, err := s.Client.Secret(ctx, s.Namespace, s.Name)
	if err != nil {
		return nil, "", err
	}
	if version == "" {
		return nil, "", fmt.Errorf("Secret %s/%s is not there; a Certificate of cert-manager with isCA: true makes it, or value identity.issuerSecret has another name", s.Namespace, s.Name)
	}
	issued, err := ca.ParseIssued(fmt.Sprintf("Secret %s/%s", s.Namespace, s.Name), data["tls.crt"], data["tls.key"], data["ca.crt"])
	return issued, version, err
}

// Follow gives every authority that the Secret gets after the version seen to reissue, until
// the context is done. One that is not good is logged, once.
func (s IssuerSecret) Follow(ctx context.Context, seen string, reissue func(*ca.Issued) error) error {
	tick := time.NewTicker(lookForIssued)
	defer tick.Stop()
	said := ""
	for {
		issued, version, err := s.Read(ctx)
		if err == nil && version != seen {
			err, said = reissue(issued), ""
		}
		if version != "" {
			seen = version
		}
		if err != nil && err.Error() != said && ctx.Err() == nil {
			s.Log.Error("the mesh goes on signing by the certificate that it has", "error", err)
			said = err.Error()
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}
