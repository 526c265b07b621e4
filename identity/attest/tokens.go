package attest

import (
	"cmp"
	"context"
	"crypto/subtle"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/heddle-mesh/heddle/identity/spiffeid"
)

const (
	maxTokens   = 10_000               // live ones; a token is for a service, not for a workload
	minTokenTTL = time.Second          // below it no token could be handed over
	maxTokenTTL = 366 * 24 * time.Hour // a token without an end is a password
)

var (
	// ErrNoToken is the error for a token name that is not in the store.
	ErrNoToken = errors.New("no such join token")
	// ErrSpec is the kind of error of a TokenSpec that makes no sense.
	ErrSpec = errors.New("bad join token request")
	// ErrFull is the kind of error when the store holds as many tokens as it may.
	ErrFull = errors.New("too many join tokens")
)

// TokenSpec says what a new token is good for.
type TokenSpec struct {
	ID        spiffeid.ID   // the identity it gives
	UID       *uint32       // if set, only a process of this user may use it, through the Unix socket
	TTL       time.Duration // how long it can be used, 1 s to 366 days
	SingleUse bool          // if set, it ends with its first use
}

// TokenInfo is a stored token, without its secret.
type TokenInfo struct {
	Name             string
	ID               spiffeid.ID
	UID              *uint32
	Created, Expires time.Time
	SingleUse        bool
}

// Tokens is the store of join tokens. Only hashes of their secrets are kept. It is safe
// for concurrent use.
type Tokens struct {
	trustDomain, path string

	mu      sync.Mutex             // guards what follows and the file
	tokens  map[string]tokenRecord // by name
	revoked map[string]time.Time   // when, by name
}

// OpenTokens loads the store of the trust domain's tokens from dir, made if needed.
func OpenTokens(dir, trustDomain string) (*Tokens, error) {
	s := &Tokens{trustDomain: trustDomain}
	if err := s.load(dir); err != nil {
		return nil, fmt.Errorf("open join tokens: %w", err)
	}
	return s, nil
}

// Create makes a token that holds the fingerprint of the control plane's root, and
// stores it. This is the only time the token itself is seen.
func (s *Tokens) Create(spec TokenSpec, root Fingerprint) (JoinToken, TokenInfo, error) {
	switch {
	case spec.ID.IsZero() || spec.ID.TrustDomain() != s.trustDomain:
		return "", TokenInfo{}, fmt.Errorf("%w: identity %q is not of trust domain %s", ErrSpec, spec.ID, s.trustDomain)
	case spec.TTL < minTokenTTL || spec.TTL > maxTokenTTL:
		return "", TokenInfo{}, fmt.Errorf("%w: TTL %v is not between %v and %v", ErrSpec, spec.TTL, minTokenTTL, maxTokenTTL)
	}
	parts, now := newTokenParts(root), time.Now()
	record := tokenRecord{
		TokenInfo: TokenInfo{Name: parts.keyID, ID: spec.ID, UID: spec.UID, Created: now, Expires: now.Add(spec.TTL), SingleUse: spec.SingleUse},
		hash:      parts.hash(),
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	next := maps.Clone(s.tokens)
	maps.DeleteFunc(next, func(_ string, r tokenRecord) bool { return !now.Before(r.Expires) })
	if len(next) >= maxTokens {
		return "", TokenInfo{}, fmt.Errorf("create join token: %w: there are %d already; revoke some (heddle token revoke)", ErrFull, len(next))
	}
	next[record.Name] = record
	if err := s.store(next, s.revoked); err != nil {
		return "", TokenInfo{}, fmt.Errorf("create join token: %w", err)
	}
	return parts.token(), record.TokenInfo, nil
}

// List returns the tokens in order of creation, expired ones included until the next Create.
func (s *Tokens) List() []TokenInfo {
	s.mu.Lock()
	defer s.mu.Unlock()
	infos := make([]TokenInfo, 0, len(s.tokens))
	for _, r := range s.tokens {
		infos = append(infos, r.TokenInfo)
	}
	slices.SortFunc(infos, func(a, b TokenInfo) int {
		return cmp.Or(a.Created.Compare(b.Created), cmp.Compare(a.Name, b.Name))
	})
	return infos
}

// Attest is the [Attestor] for join tokens. A single-use token is spent once Attest has
// accepted it, even if what follows goes wrong.
func (s *Tokens) Attest(_ context.Context, e Evidence) (Attested, error) {
	if e.Token == "" {
		return Attested{}, ErrNotMine
	}
	parts, err := e.Token.parse()
	if err != nil {
		return Attested{}, fmt.Errorf("%w: %v", ErrUnauthenticated, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	record, known := s.tokens[parts.keyID]
	hash := parts.hash()
	if match := subtle.ConstantTimeCompare(hash[:], record.hash[:]); !known || match != 1 {
		return Attested{}, fmt.Errorf("%w: join token %s is unknown, revoked or used up; make a new one with heddle token create", ErrUnauthenticated, parts.keyID)
	}
	if err := record.permits(e, time.Now()); err != nil {
		return Attested{}, err
	}
	if record.SingleUse {
		next := maps.Clone(s.tokens)
		delete(next, record.Name)
		if err := s.store(next, s.revoked); err != nil {
			return Attested{}, fmt.Errorf("spend join token %s: %w", record.Name, err)
		}
	}
	return Attested{record.ID, record.Name}, nil
}

// permits checks the conditions of a token whose secret was right.
func (i TokenInfo) permits(e Evidence, now time.Time) error {
	switch {
	case !now.Before(i.Expires):
		return fmt.Errorf("%w: join token %s expired at %s; make a new one with heddle token create", ErrUnauthenticated, i.Name, i.Expires.UTC().Format(time.RFC3339))
	case !e.Requested.IsZero() && e.Requested != i.ID:
		return fmt.Errorf("%w: join token %s is for %s, not for %s", ErrDenied, i.Name, i.ID, e.Requested)
	case i.UID != nil && e.Peer == nil:
		return fmt.Errorf("%w: join token %s is for uid %d, so it works only through the control plane's Unix socket", ErrDenied, i.Name, *i.UID)
	case i.UID != nil && e.Peer.UID != *i.UID:
		return fmt.Errorf("%w: join token %s is for uid %d, and this process has uid %d", ErrDenied, i.Name, *i.UID, e.Peer.UID)
	}
	return nil
}
