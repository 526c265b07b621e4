package webhook

import (
	"context"
	"errors"
	"time"

	"github.com/heddle-mesh/heddle/integration/kubernetes"
)

// store keeps the certificate where all replicas find it.
type store struct {
	client          *kubernetes.Client
	namespace, name string   // of the Secret
	hosts           []string // that the certificate is for
}

// ensure gives the certificate that all replicas use, and makes a new one where there is
// none, where it is not for our hosts, or where a third of its life is left. Of replicas
// that find the same, the first to write wins.
func (s *store) ensure(ctx context.Context, now time.Time) (*certificate, error) {
	for {
		data, version, err := s.client.Secret(ctx, s.namespace, s.name)
		if err != nil {
			return nil, err
		}
		current, err := parse(data)
		if err == nil && now.Before(current.renewAt()) && s.fits(current) {
			return current, nil
		}
		var before []byte
		if current != nil {
			before = firstBlock(current.bundle)
		}
		next, err := issue(s.hosts, now, before)
		if err != nil {
			return nil, err
		}
		err = s.client.UpdateSecret(ctx, s.namespace, s.name, version, next)
		if errors.Is(err, kubernetes.ErrConflict) {
			continue // another replica was first: its certificate is ours
		}
		if err != nil {
			return nil, err
		}
		return parse(next)
	}
}

func (s *store) fits(c *certificate) bool {
	for _, host := range s.hosts {
		if c.serving.Leaf.VerifyHostname(host) != nil {
			return false
		}
	}
	return true
}
