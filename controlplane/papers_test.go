package controlplane

import (
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"path/filepath"
	"testing"
	"time"

	gospiffe "github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"

	"github.com/heddle-mesh/heddle/controlplane/xds/xdstest"
	"github.com/heddle-mesh/heddle/identity/ca"
	"github.com/heddle-mesh/heddle/identity/spiffeid"
)

// paper is a certificate that somebody shows, and how Envoy refuses it.
type paper struct {
	name        string
	certificate *certificate // nil: a caller shows none, a server speaks no TLS
	authority   *ca.CA       // of a good one
	alert       string       // of TLS, when a caller shows it
	byServer    string       // Envoy's reason then
	byClient    string       // Envoy's reason when a server shows it
}

const otherDomain = "other trust domain"

// papers are SVIDs of a service: a good one, and those that must not pass. All are
// issued by Heddle's own certificate authorities.
func papers(t *testing.T, service string) (good *paper, bad []*paper) {
	t.Helper()
	dir := t.TempDir()
	// The same root twice: what the second issues is soon over.
	own, brief := authorityIn(t, dir, "mesh.local", time.Hour), authorityIn(t, dir, "mesh.local", ca.MinSVIDTTL)
	expired := svid(t, brief, service)
	foreign := svid(t, authorityIn(t, t.TempDir(), "mesh.local", time.Hour), service)
	other := svid(t, authorityIn(t, t.TempDir(), "other.local", time.Hour), service)
	leaf := expired.pair(t).Leaf
	xdstest.Eventually(t, "the SVID has expired", func() bool { return time.Now().After(leaf.NotAfter) })
	good = &paper{name: "good", certificate: svid(t, own, service), authority: own}
	const (
		refused = "CERTIFICATE_VERIFY_FAILED:verify_cert_failed:_X509_verify_cert:_certificate_verification_error_at_depth_"
		over    = refused + "0:_certificate_has_expired"
		unknown = refused + "1:_unable_to_get_local_issuer_certificate"
		name    = "CERTIFICATE_VERIFY_FAILED:verify_cert_failed:_SAN_matcher,_certificate_SANs_are_[spiffe://other.local/"
	)
	return good, []*paper{
		{name: "expired", certificate: expired, alert: "expired certificate", byServer: over, byClient: over},
		{name: "foreign root", certificate: foreign, alert: "unknown certificate authority", byServer: unknown, byClient: unknown},
		{name: otherDomain, certificate: other, alert: "unknown certificate", byServer: name, byClient: name},
		{name: "none", alert: "certificate required", byServer: "PEER_DID_NOT_RETURN_A_CERTIFICATE", byClient: "WRONG_VERSION_NUMBER"},
	}
}

// authorityIn opens a certificate authority.
func authorityIn(t *testing.T, dir, trustDomain string, ttl time.Duration) *ca.CA {
	t.Helper()
	config := ca.DefaultConfig()
	config.TrustDomain, config.SVIDTTL = trustDomain, ttl
	authority, err := ca.Open(filepath.Join(dir, "ca"), config)
	if err != nil {
		t.Fatal(err)
	}
	return authority
}

// svid has an authority issue the SVID of a service in its trust domain.
func svid(t *testing.T, authority *ca.CA, service string) *certificate {
	t.Helper()
	id, err := spiffeid.New(authority.TrustDomain().Name(), "default", service)
	if err != nil {
		t.Fatal(err)
	}
	key := newKey(t)
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		t.Fatal(err)
	}
	csr, err := ca.ParseCSR(der)
	if err != nil {
		t.Fatal(err)
	}
	chain, err := authority.Sign(csr, id)
	if err != nil {
		t.Fatal(err)
	}
	c := &certificate{}
	c.chain, c.key, err = (&x509svid.SVID{ID: gospiffe.RequireFromString(id.String()), Certificates: chain, PrivateKey: key}).Marshal()
	if err == nil {
		c.roots, err = authority.Bundle().Marshal()
	}
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// pair is what TLS is given; nil stands for no certificate.
func (c *certificate) pair(t *testing.T) *tls.Certificate {
	t.Helper()
	if c == nil {
		return &tls.Certificate{}
	}
	pair, err := tls.X509KeyPair(c.chain, c.key)
	if err != nil {
		t.Fatal(err)
	}
	return &pair
}

// trusting adds the roots of another trust domain to those that own takes, as a
// federation does: then it is the name alone that tells its SVIDs from ours.
func trusting(own *certificate, bad []*paper) *certificate {
	for _, p := range bad {
		if p.name == otherDomain {
			own.roots = append(own.roots, p.certificate.roots...)
		}
	}
	return own
}
