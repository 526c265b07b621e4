package ca

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"time"

	gospiffe "github.com/spiffe/go-spiffe/v2/spiffeid"
)

// Issued is an authority that somebody else makes and renews, such as cert-manager: a
// certificate that may sign, its key, and the roots that verifiers trust. It prints as its
// name only.
type Issued struct {
	source string
	chain  []*x509.Certificate // the one that signs, then those above it
	key    crypto.Signer
	roots  []*x509.Certificate
}

// Format keeps the key out of logs whatever the verb.
func (i *Issued) Format(f fmt.State, _ rune) { fmt.Fprintf(f, "issued(%s)", i.chain[0].Subject) }

// ParseIssued reads an authority in PEM, in three parts that have their names from Secrets
// of type kubernetes.io/tls: tls.crt is the certificate that signs and what is above it,
// tls.key its key, ca.crt the roots. Errors, here and later, begin with source and name the
// part, and never quote it.
func ParseIssued(source string, tlsCrt, tlsKey, caCrt []byte) (_ *Issued, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("%s: %w", source, err)
		}
	}()
	chain, err := parseCertificates(tlsCrt)
	if err != nil {
		return nil, fmt.Errorf("tls.crt: %w", err)
	}
	roots, err := parseCertificates(caCrt)
	if err != nil {
		return nil, fmt.Errorf("ca.crt: %w; it has the roots that verifiers trust", err)
	}
	key, err := parseKey(tlsKey)
	if err != nil {
		return nil, fmt.Errorf("tls.key: %w", err)
	}
	if public, ok := key.Public().(interface{ Equal(crypto.PublicKey) bool }); !ok || !public.Equal(chain[0].PublicKey) {
		return nil, errors.New("tls.key: is not the key of the first certificate in tls.crt")
	}
	return &Issued{source, chain, key, roots}, nil
}

func parseCertificates(data []byte) ([]*x509.Certificate, error) {
	var out []*x509.Certificate
	for {
		block, rest := pem.Decode(data)
		if block == nil {
			break
		}
		if block.Type != certificateBlock {
			return nil, fmt.Errorf("block %d is no certificate", len(out)+1)
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("certificate %d: %w", len(out)+1, err)
		}
		out, data = append(out, cert), rest
	}
	if len(out) == 0 {
		return nil, errors.New("has no certificate in PEM")
	}
	return out, nil
}

func marshalCertificates(certs []*x509.Certificate) (data []byte) {
	for _, cert := range certs {
		data = append(data, pem.EncodeToMemory(&pem.Block{Type: certificateBlock, Bytes: cert.Raw})...)
	}
	return data
}

// parseKey reads a key in any of the encodings that issuers use.
func parseKey(data []byte) (crypto.Signer, error) {
	block, _ := pem.Decode(data)
	if block == nil {
		return nil, errors.New("has no private key in PEM")
	}
	for _, parse := range []func([]byte) (any, error){
		x509.ParsePKCS8PrivateKey,
		func(der []byte) (any, error) { return x509.ParseECPrivateKey(der) },
		func(der []byte) (any, error) { return x509.ParsePKCS1PrivateKey(der) },
	} {
		parsed, err := parse(block.Bytes)
		if err != nil {
			continue
		}
		switch key := parsed.(type) {
		case *ecdsa.PrivateKey:
			return key, nil
		case *rsa.PrivateKey:
			if key.N.BitLen() < 2048 {
				return nil, fmt.Errorf("is an RSA key of %d bits; want 2048 at least", key.N.BitLen())
			}
			return key, nil
		}
		return nil, errors.New("is neither an ECDSA nor an RSA key, which all proxies take")
	}
	return nil, errors.New("is no private key in PKCS #8, SEC 1 or PKCS #1")
}

// check finds out whether SVIDs of a trust domain that are signed with it now are valid.
func (i *Issued) check(td gospiffe.TrustDomain, now time.Time) error {
	signer := i.chain[0]
	switch {
	case !signer.IsCA || signer.KeyUsage&x509.KeyUsageCertSign == 0:
		return errors.New("tls.crt: may not sign certificates; a Certificate of cert-manager needs isCA: true")
	case now.After(signer.NotAfter):
		return fmt.Errorf("tls.crt: expired on %s; its issuer has not renewed it", signer.NotAfter.Format(time.DateTime))
	}
	for _, uri := range signer.URIs {
		if uri.Scheme == "spiffe" && uri.String() != td.IDString() {
			return fmt.Errorf("tls.crt: is of %s, and this mesh is %s", uri, td.IDString())
		}
	}
	if !i.leadsTo(i.roots, now) {
		return errors.New("tls.crt: does not lead to a root in ca.crt; tls.crt has the certificate that signs first, then those above it")
	}
	return nil
}

// OpenIssued makes an authority of the one that was issued last, next, and of what Memory
// gave before a restart; it may have one of the two alone. Reissue brings those to come. A
// memory that is of no use, and a next that is not good where there is a memory, are logged.
func OpenIssued(config Config, memory Files, next *Issued) (*CA, error) {
	if err := config.Validate(); err != nil {
		return nil, fmt.Errorf("open certificate authority: %w", err)
	}
	config = config.withDefaults()
	c := &CA{config: config, trustDomain: gospiffe.RequireTrustDomainFromString(config.TrustDomain)}
	var err error
	if len(memory) > 0 {
		if err = c.recall(memory); err != nil {
			config.Log.Warn("starts without what it knew of its former issuer", "error", err)
		}
	}
	if next != nil {
		err = c.Reissue(next)
	}
	if c.current.Load() == nil {
		return nil, fmt.Errorf("open certificate authority: %w", err)
	}
	if err != nil {
		config.Log.Error("signs by the issued certificate of before", "error", err)
	}
	return c, nil
}

func (c Config) withDefaults() Config {
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	return c
}

// Reissue signs with another issued authority. One that leads to a root which is not trusted
// yet is trusted at once and signs one SVID TTL later, when all workloads know; roots that
// are no more are trusted until the last SVID of theirs has expired. An authority that is
// not good is an error and changes nothing.
func (c *CA) Reissue(next *Issued) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.config.Now()
	if err := next.check(c.trustDomain, now); err != nil {
		return fmt.Errorf("%s: %w", next.source, err)
	}
	before := c.current.Load()
	if before == nil {
		return c.signBy(next, nil, now)
	}
	a := *before
	a.trust(next.roots, now)
	if next.leadsTo(a.known(now.Add(-c.settled())), now) {
		return c.signBy(next, &a, now)
	}
	a.pending = next
	c.postpone(&a, now)
	c.config.Log.Info("trusts the roots of a new issued certificate, and signs by it later", "trust_domain", c.config.TrustDomain, "at", a.pendingAt)
	return c.publish(&a, now)
}

// issued tells whether somebody else makes the authority.
func (a *authority) issued() bool { return a.signer != nil }

// settled is how long after a change of the roots all workloads have it.
func (c *CA) settled() time.Duration { return c.config.SVIDTTL + clockSkew }

// postpone says when the pending authority signs: when its root is known to all, and before
// there is nothing else to sign with.
func (c *CA) postpone(a *authority, now time.Time) {
	root := a.pending.root(a.pending.roots, now)
	if root == nil {
		return // expired meanwhile: signBy says so
	}
	a.pendingAt = earlier(a.since[string(root.Raw)].Add(c.settled()), a.intermediate.cert.NotAfter)
}

// trust adds roots that are not trusted yet.
func (a *authority) trust(roots []*x509.Certificate, now time.Time) {
	a.more, a.since = slices.Clone(a.more), maps.Clone(a.since)
	for _, root := range roots {
		if !slices.ContainsFunc(a.roots(), root.Equal) {
			a.more = append(a.more, root)
			a.since[string(root.Raw)] = now
		}
	}
}

// known are the roots that have been trusted since a time or longer.
func (a *authority) known(since time.Time) []*x509.Certificate {
	return slices.DeleteFunc(a.roots(), func(c *x509.Certificate) bool { return a.since[string(c.Raw)].After(since) })
}

// leadsTo tells whether the chain ends at one of the roots.
func (i *Issued) leadsTo(roots []*x509.Certificate, now time.Time) bool {
	return i.root(roots, now) != nil
}

// root is the one of the roots that the chain ends at, or nil.
func (i *Issued) root(roots []*x509.Certificate, now time.Time) *x509.Certificate {
	pool, above := x509.NewCertPool(), x509.NewCertPool()
	for _, c := range roots {
		pool.AddCert(c)
	}
	for _, c := range i.chain[1:] {
		above.AddCert(c)
	}
	chains, err := i.chain[0].Verify(x509.VerifyOptions{Roots: pool, Intermediates: above, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}})
	if err != nil {
		return nil
	}
	return chains[0][len(chains[0])-1]
}

// signBy makes an issued authority the one that signs, after one that trusts its roots or
// after none, which is nil. c.mu is held.
func (c *CA) signBy(next *Issued, before *authority, now time.Time) error {
	a, err := next.authority(now)
	if err != nil {
		return err
	}
	if before != nil {
		a.inherit(before, now)
	}
	a.retire(now.Add(-c.settled()))
	c.config.Log.Info("signs by an issued certificate", "trust_domain", c.config.TrustDomain, "expires", next.chain[0].NotAfter)
	return c.publish(a, now)
}

// inherit goes on trusting the roots of before, as former ones unless they are a's.
func (a *authority) inherit(before *authority, now time.Time) {
	own := a.roots()
	for _, cert := range before.roots() {
		if at, ok := before.since[string(cert.Raw)]; ok {
			a.since[string(cert.Raw)] = at
		}
		if !slices.ContainsFunc(own, cert.Equal) {
			a.old = append(a.old, oldRoot{cert, before.replaced(cert, now)})
		}
	}
}

// authority is one that signs by i and knows nothing of before.
func (i *Issued) authority(now time.Time) (*authority, error) {
	root := i.root(i.roots, now)
	if root == nil { // it has expired while it waited
		return nil, errors.New("the issued certificate does not lead to a root any more")
	}
	// The root that signs is the first: servers send it along.
	return &authority{
		root: &keyPair{cert: root}, more: slices.DeleteFunc(slices.Clone(i.roots), root.Equal), signer: i, since: map[string]time.Time{},
		intermediate: &keyPair{cert: i.chain[0], key: i.key}, above: i.chain[1:],
	}, nil
}

// replaced is when a root signed last.
func (a *authority) replaced(cert *x509.Certificate, now time.Time) time.Time {
	for _, o := range a.old {
		if o.cert.Equal(cert) {
			return o.replaced
		}
	}
	return now
}

// retire forgets the roots that were replaced before a time, and tells whether there were any.
func (a *authority) retire(before time.Time) bool {
	n := len(a.old)
	a.old = slices.DeleteFunc(slices.Clone(a.old), func(o oldRoot) bool { return o.replaced.Before(before) })
	return len(a.old) < n
}

// issuedIssuer is issuer for an authority that somebody else renews.
func (c *CA) issuedIssuer(now time.Time) (*authority, error) {
	a := c.current.Load()
	if a.pending != nil && !now.Before(a.pendingAt) || len(a.old) > 0 {
		if err := c.CatchUp(); err != nil {
			return nil, err
		}
		a = c.current.Load()
	}
	if now.After(a.intermediate.cert.NotAfter) {
		return nil, fmt.Errorf("the issued certificate expired on %s, and its issuer has not renewed it", a.intermediate.cert.NotAfter.Format(time.DateTime))
	}
	return a, nil
}

// CatchUp does what is due: the issued authority that waited signs, old roots are forgotten.
// Sign does so by itself.
func (c *CA) CatchUp() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	a, now := *c.current.Load(), c.config.Now()
	if a.pending != nil && !now.Before(a.pendingAt) {
		return c.signBy(a.pending, &a, now)
	}
	if a.retire(now.Add(-c.settled())) {
		return c.publish(&a, now)
	}
	return nil
}
