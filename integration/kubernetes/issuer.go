package kubernetes

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/heddle-mesh/heddle/identity/ca"
)

// IssuedSecret is the Secret with what replicas remember of an authority that somebody else
// issues: see [ca.CA.Memory].
const IssuedSecret = "heddle-issued"

// IssuerSecret is a Secret of type kubernetes.io/tls with an authority that somebody else
// makes and renews, as cert-manager does for a Certificate with isCA: true.
type IssuerSecret struct {
	Client          *Client
	Namespace, Name string
	Log             *slog.Logger

	seen string // version of the Secret that was taken last
}

// lookForIssued is how often a renewal is looked for; its SVIDs' lives are longer by far.
const lookForIssued = 10 * time.Second

// Open makes an authority of what the Secret has and of what replicas remember. It starts
// with the latter alone where the Secret is not good.
func (s *IssuerSecret) Open(ctx context.Context, config ca.Config) (*ca.CA, error) {
	memory, _, err := s.Client.Secret(ctx, s.Namespace, IssuedSecret)
	if err != nil {
		return nil, err
	}
	issued, version, err := s.read(ctx)
	if err != nil && len(memory) == 0 {
		return nil, err
	}
	if err == nil { // else Follow tells what is wrong
		s.seen = version
	}
	authority, openErr := ca.OpenIssued(config, memory, issued)
	if openErr != nil {
		return nil, errors.Join(err, openErr)
	}
	return authority, nil
}

// read gives the authority, and the version of the Secret that it is from.
func (s *IssuerSecret) read(ctx context.Context) (*ca.Issued, string, error) {
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

// Follow gives every authority that the Secret gets to authority, and has replicas remember
// it, until the context is done. What is not good is logged, once.
func (s *IssuerSecret) Follow(ctx context.Context, authority *ca.CA) error {
	return repeat(ctx, lookForIssued, func(ctx context.Context) error {
		err := s.look(ctx, authority)
		return errors.Join(err, s.remember(ctx, authority))
	}, func(err error) { s.Log.Error("the mesh goes on signing by the certificate that it has", "error", err) })
}

// look takes what is new in the Secret. What is wrong with a version stays wrong.
func (s *IssuerSecret) look(ctx context.Context, authority *ca.CA) error {
	issued, version, err := s.read(ctx)
	if err == nil && version != s.seen {
		err = authority.Reissue(issued)
	}
	if err != nil {
		return err
	}
	s.seen = version
	return authority.CatchUp()
}

// remember brings what replicas remember and what authority knows together.
func (s *IssuerSecret) remember(ctx context.Context, authority *ca.CA) error {
	before, version, err := s.Client.Secret(ctx, s.Namespace, IssuedSecret)
	if err != nil {
		return err
	}
	if err := authority.Merge(before); err != nil {
		s.Log.Warn("what replicas remember is made anew", "error", err)
	}
	now, err := authority.Memory()
	if err != nil || now.Equal(before) {
		return err
	}
	if err := s.Client.UpdateSecret(ctx, s.Namespace, IssuedSecret, version, now); !errors.Is(err, ErrConflict) {
		return err
	}
	return nil // another replica was first: the next look shows what it knows
}
