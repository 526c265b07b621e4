package attest

import (
	"crypto/x509"
	"fmt"
	"maps"
	"time"
)

// keepRevoked is for how long a revocation is remembered: longer than any SVID lives, since
// one that is never renewed needs no refusal.
const keepRevoked = maxTokenTTL

// TokenOf names the join token that an SVID goes back to, "" for none. The certificate
// authority writes it into the subject (serialNumber, X.520), so that neither a restart nor a
// renewal forgets it and nothing has to be kept for each SVID.
func TokenOf(svid *x509.Certificate) string { return svid.Subject.SerialNumber }

// Revoke ends a token: nobody joins with it, and no SVID that goes back to it is renewed.
// Those that there are live on until they expire. A token that has expired or is used up
// can be revoked too, for its SVIDs; so the name need not be one that is still stored.
func (s *Tokens) Revoke(name string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, already := s.revoked[name]; already {
		return fmt.Errorf("revoke join token %s: %w: it is revoked already", name, ErrNoToken)
	}
	if !isTokenName(name) {
		return fmt.Errorf("revoke join token %q: %w", name, ErrNoToken)
	}
	now := time.Now()
	tokens, revoked := maps.Clone(s.tokens), maps.Clone(s.revoked)
	delete(tokens, name)
	maps.DeleteFunc(revoked, func(_ string, at time.Time) bool { return now.Sub(at) > keepRevoked })
	if len(revoked) >= maxTokens {
		return fmt.Errorf("revoke join token %s: %w: %d are revoked, and the oldest must be remembered for %v", name, ErrFull, len(revoked), keepRevoked)
	}
	revoked[name] = now
	if err := s.store(tokens, revoked); err != nil {
		return fmt.Errorf("revoke join token %s: %w", name, err)
	}
	return nil
}

// revokedAt tells whether and when a token was revoked.
func (s *Tokens) revokedAt(name string) (time.Time, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	at, ok := s.revoked[name]
	return at, ok
}
