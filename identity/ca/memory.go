package ca

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"maps"
	"slices"
)

// An authority that somebody else issues has no files: what it signs with is where it was
// issued, until that is overwritten by the next. Its memory is what it needs meanwhile to go
// on after a restart, and shares with its replicas: the authority that signs, and since when
// which roots are trusted.
const (
	signerCertFile = "tls.crt"
	signerKeyFile  = "tls.key"
	signerRootFile = "ca.crt"
	trustedFile    = "trusted.pem"
)

// Memory is what an issued authority is to be told when it is opened again. It is secret:
// the key is in it.
func (c *CA) Memory() (Files, error) {
	a := c.current.Load()
	if !a.issued() {
		return nil, errors.New("memory of an authority: it is not issued by somebody else, and has files")
	}
	key, err := x509.MarshalPKCS8PrivateKey(a.signer.key)
	if err != nil {
		return nil, fmt.Errorf("memory of an authority: encode key: %w", err)
	}
	roots := make([]trusted, 0, len(a.roots()))
	for _, cert := range a.roots() {
		t := trusted{cert: cert, since: a.since[string(cert.Raw)]}
		for _, o := range a.old {
			if o.cert.Equal(cert) {
				t.replaced = o.replaced
			}
		}
		roots = append(roots, t)
	}
	return Files{
		signerKeyFile:  pem.EncodeToMemory(&pem.Block{Type: keyBlock, Bytes: key}),
		signerCertFile: marshalCertificates(a.signer.chain),
		signerRootFile: marshalCertificates(a.signer.roots),
		trustedFile:    marshalTrusted(roots),
	}, nil
}

// recall goes on from a memory, with nothing before.
func (c *CA) recall(memory Files) error {
	signer, err := ParseIssued("memory", memory[signerCertFile], memory[signerKeyFile], memory[signerRootFile])
	if err != nil {
		return err
	}
	roots, err := parseTrusted(memory[trustedFile])
	if err != nil {
		return fmt.Errorf("%s: %w", trustedFile, err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.config.Now()
	if err := signer.check(c.trustDomain, now); err != nil {
		return err
	}
	a, err := signer.authority(now)
	if err != nil {
		return err
	}
	for _, t := range roots {
		if !t.since.IsZero() {
			a.since[string(t.cert.Raw)] = t.since
		}
		switch {
		case slices.ContainsFunc(a.roots(), t.cert.Equal):
		case t.replaced.IsZero():
			a.more = append(a.more, t.cert)
		default:
			a.old = append(a.old, oldRoot{t.cert, t.replaced})
		}
	}
	a.retire(now.Add(-c.settled()))
	return c.publish(a, now)
}

// Merge takes from the memory of a replica which of the roots it has seen before us, and how
// long it wants to trust those of before.
func (c *CA) Merge(memory Files) error {
	roots, err := parseTrusted(memory[trustedFile])
	if err != nil {
		return fmt.Errorf("memory of another replica: %s: %w", trustedFile, err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	a, now := *c.current.Load(), c.config.Now()
	if !a.issued() {
		return nil
	}
	a.merge(roots)
	if a.pending != nil {
		c.postpone(&a, now)
	}
	return c.publish(&a, now)
}

func (a *authority) merge(roots []trusted) {
	since := maps.Clone(a.since)
	a.since, a.old = since, slices.Clone(a.old)
	for _, t := range roots {
		if at, ok := since[string(t.cert.Raw)]; !t.since.IsZero() && (!ok || t.since.Before(at)) {
			since[string(t.cert.Raw)] = t.since
		}
		for i, o := range a.old {
			if o.cert.Equal(t.cert) && t.replaced.After(o.replaced) {
				a.old[i].replaced = t.replaced
			}
		}
	}
}

// Equal tells whether two sets of files are the same.
func (f Files) Equal(g Files) bool {
	if len(f) != len(g) {
		return false
	}
	for name, data := range f {
		if !bytes.Equal(data, g[name]) {
			return false
		}
	}
	return true
}
