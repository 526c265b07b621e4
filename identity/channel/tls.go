package channel

import (
	"bytes"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	gospiffe "github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/spiffetls/tlsconfig"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"

	"github.com/heddle-mesh/heddle/identity/attest"
	"github.com/heddle-mesh/heddle/identity/spiffeid"
)

// ControlPlane is the identity that the control plane of a trust domain serves with.
func ControlPlane(trustDomain string) (spiffeid.ID, error) {
	return spiffeid.New(trustDomain, "heddle-system", "controlplane")
}

// FingerprintOf is what a join token holds of the root certificate.
func FingerprintOf(root *x509.Certificate) attest.Fingerprint { return sha256.Sum256(root.Raw) }

// Server configures the control plane's TCP port. A client need not present a
// certificate (RequireSVID refuses it then, but for the calls it opens); one that it does
// present must be a valid SVID of the trust domain. The root that signs is sent along,
// for clients that know its fingerprint only.
func Server(svid x509svid.Source, bundle x509bundle.Source, trustDomain gospiffe.TrustDomain) *tls.Config {
	return &tls.Config{
		MinVersion:             tls.VersionTLS13,
		SessionTicketsDisabled: true,
		ClientAuth:             tls.RequestClientCert,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			return serverCertificate(svid, bundle, trustDomain)
		},
		VerifyConnection: func(state tls.ConnectionState) error {
			if len(state.PeerCertificates) == 0 {
				return nil
			}
			_, err := verify(state.PeerCertificates, bundle, trustDomain)
			return err
		},
	}
}

func serverCertificate(svid x509svid.Source, bundle x509bundle.Source, trustDomain gospiffe.TrustDomain) (*tls.Certificate, error) {
	own, err := svid.GetX509SVID()
	if err != nil {
		return nil, fmt.Errorf("own SVID: %w", err)
	}
	trusted, err := bundle.GetX509BundleForTrustDomain(trustDomain)
	if err != nil {
		return nil, fmt.Errorf("own bundle: %w", err)
	}
	cert := &tls.Certificate{PrivateKey: own.PrivateKey, Leaf: own.Certificates[0]}
	for _, c := range own.Certificates {
		cert.Certificate = append(cert.Certificate, c.Raw)
	}
	if roots := trusted.X509Authorities(); len(roots) > 0 {
		cert.Certificate = append(cert.Certificate, roots[0].Raw)
	}
	return cert, nil
}

// verify checks an SVID chain and that it is of a workload of trustDomain.
func verify(chain []*x509.Certificate, bundle x509bundle.Source, trustDomain gospiffe.TrustDomain) (spiffeid.ID, error) {
	verified, _, err := x509svid.Verify(chain, bundle)
	if err != nil {
		return spiffeid.ID{}, err
	}
	if err := tlsconfig.AuthorizeMemberOf(trustDomain)(verified, nil); err != nil {
		return spiffeid.ID{}, err
	}
	return spiffeid.Parse(verified.String())
}

// Client configures a client that knows the bundle and takes exactly server for the
// other end. With svid nil it presents no certificate.
func Client(svid x509svid.Source, bundle x509bundle.Source, server spiffeid.ID) (*tls.Config, error) {
	want, err := gospiffe.FromString(server.String())
	if err != nil {
		return nil, fmt.Errorf("server identity: %w", err)
	}
	var config *tls.Config
	if svid == nil {
		config = tlsconfig.TLSClientConfig(bundle, tlsconfig.AuthorizeID(want))
	} else {
		config = tlsconfig.MTLSClientConfig(svid, bundle, tlsconfig.AuthorizeID(want))
	}
	config.MinVersion = tls.VersionTLS13
	return config, nil
}

// PinnedClient configures a client that knows fingerprints of roots only, as from a join
// token. It takes exactly server for the other end, under one of these roots.
func PinnedClient(server spiffeid.ID, roots ...attest.Fingerprint) (*tls.Config, error) {
	want, err := gospiffe.FromString(server.String())
	if err != nil {
		return nil, fmt.Errorf("server identity: %w", err)
	}
	return &tls.Config{
		MinVersion:         tls.VersionTLS13,
		InsecureSkipVerify: true, // VerifyConnection does it: by pin and SPIFFE ID, not by host name
		VerifyConnection: func(state tls.ConnectionState) error {
			return verifyPinned(state.PeerCertificates, roots, want)
		},
	}, nil
}

func verifyPinned(chain []*x509.Certificate, roots []attest.Fingerprint, want gospiffe.ID) error {
	var errs []error
	for _, cert := range chain {
		if !slices.Contains(roots, FingerprintOf(cert)) {
			continue
		}
		for _, anchor := range successors(cert, chain, time.Now()) {
			bundle := x509bundle.FromX509Authorities(want.TrustDomain(), []*x509.Certificate{anchor})
			id, verified, err := x509svid.Verify(chain, bundle)
			if err == nil {
				return tlsconfig.AuthorizeID(want)(id, verified)
			}
			errs = append(errs, err)
		}
	}
	if len(errs) > 0 { // all say the same, of one root or another
		return fmt.Errorf("control plane's certificate: %w", errs[0])
	}
	return errors.New("the control plane does not have the root by which it was to be recognised: it is another control plane, or its root was rotated since; make a new join token with heddle token create, or on Kubernetes a new pod")
}

// maxPinnedChain bounds what a stranger can make us verify.
const maxPinnedChain = 16

// successors are a root and those that a chain shows to have come after it: the former has
// signed the key of each next one, under the same name (identity/ca, links).
func successors(root *x509.Certificate, chain []*x509.Certificate, now time.Time) []*x509.Certificate {
	out := []*x509.Certificate{root}
	if len(chain) > maxPinnedChain {
		return out
	}
	for i := 0; i < len(out); i++ {
		for _, cert := range chain {
			link := bytes.Equal(cert.RawSubject, cert.RawIssuer) && bytes.Equal(cert.RawSubject, out[i].RawSubject)
			valid := !now.Before(cert.NotBefore) && !now.After(cert.NotAfter)
			if link && valid && !slices.Contains(out, cert) && cert.CheckSignatureFrom(out[i]) == nil {
				out = append(out, cert)
			}
		}
	}
	return out
}
