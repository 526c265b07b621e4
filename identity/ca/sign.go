package ca

import (
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"net/url"
	"time"

	"github.com/heddle-mesh/heddle/identity/spiffeid"
)

// Sign issues an X.509-SVID for the key of csr to id and returns the chain: the leaf,
// then the intermediate and what is above it. The caller has established that the requester is id.
//
// Of the request only the key counts: URI names in it must all equal id (else
// ErrIdentity), everything else it asks for is ignored. The leaf has what the X509-SVID
// standard, sections 2 to 4, demands: id as its only name, digitalSignature, no CA flag.
// It starts a little in the past, for machines whose clocks are behind, and ends after
// the SVID TTL and never after the intermediate.
func (c *CA) Sign(csr *x509.CertificateRequest, id spiffeid.ID) ([]*x509.Certificate, error) {
	return c.SignFor(csr, id, "")
}

// SignFor is Sign with a public note of what the requester's proof goes back to, such as
// the name of a join token. It is the serialNumber (X.520) of the leaf's subject, which is
// empty otherwise.
func (c *CA) SignFor(csr *x509.CertificateRequest, id spiffeid.ID, origin string) ([]*x509.Certificate, error) {
	if id.IsZero() || id.TrustDomain() != c.config.TrustDomain {
		return nil, fmt.Errorf("%w: %q is not of trust domain %s", ErrIdentity, id, c.config.TrustDomain)
	}
	if err := checkCSR(csr, id); err != nil {
		return nil, err
	}
	now := c.config.Now()
	a, err := c.issuer(now)
	if err != nil {
		return nil, fmt.Errorf("sign SVID of %s: %w", id, err)
	}
	issuer := a.intermediate
	template := &x509.Certificate{
		Subject:               pkix.Name{SerialNumber: origin},
		URIs:                  []*url.URL{{Scheme: "spiffe", Host: id.TrustDomain(), Path: "/ns/" + id.Namespace() + "/sa/" + id.ServiceAccount()}},
		NotBefore:             now.Add(-clockSkew),
		NotAfter:              earlier(now.Add(c.config.SVIDTTL), issuer.cert.NotAfter),
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, issuer.cert, csr.PublicKey, issuer.key)
	if err != nil {
		return nil, fmt.Errorf("sign SVID of %s: %w", id, err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("parse new SVID of %s: %w", id, err)
	}
	return append([]*x509.Certificate{leaf, issuer.cert}, a.above...), nil
}

// issuer returns the authority with its intermediate, a new one when half of the old one's
// life is over. SVIDs of the old one stay valid: each carries its own chain.
func (c *CA) issuer(now time.Time) (*authority, error) {
	a := c.current.Load()
	if a.issued() {
		return c.issuedIssuer(now)
	}
	if !c.stale(a, now) {
		return a, nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	next := *c.current.Load()
	if !c.stale(&next, now) {
		return &next, nil
	}
	if !now.Before(next.root.cert.NotAfter) {
		return nil, fmt.Errorf("the root certificate expired on %s", next.root.cert.NotAfter.Format(time.DateTime))
	}
	if err := c.publish(&next, now); err != nil {
		return nil, err
	}
	return &next, nil
}

func (c *CA) stale(a *authority, now time.Time) bool {
	renewAt := a.intermediate.cert.NotAfter.Add(-c.config.IntermediateTTL / 2)
	if a.intermediate.cert.NotAfter.Equal(a.root.cert.NotAfter) {
		renewAt = a.root.cert.NotAfter // cut short by its root: a new one would be no longer
	}
	return !now.Before(renewAt)
}
