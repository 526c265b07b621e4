package ca

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/x509"
	"errors"
	"fmt"

	"github.com/heddle-mesh/heddle/identity/spiffeid"
)

// MaxCSR is the largest certificate signing request taken, in bytes of DER. One with
// a 4096-bit RSA key has about 1,700.
const MaxCSR = 8 << 10

var (
	// ErrCSR is the kind of error of a request that nobody could get signed.
	ErrCSR = errors.New("bad certificate signing request")
	// ErrIdentity is the kind of error of a request for an identity that is not the
	// requester's.
	ErrIdentity = errors.New("certificate signing request for another identity")
)

// ParseCSR reads a PKCS #10 request (RFC 2986) in DER. Errors are ErrCSR. It does not
// check the signature: Sign does.
func ParseCSR(der []byte) (*x509.CertificateRequest, error) {
	if len(der) > MaxCSR {
		return nil, fmt.Errorf("%w: %d bytes, at most %d are taken", ErrCSR, len(der), MaxCSR)
	}
	csr, err := x509.ParseCertificateRequest(der)
	if err != nil {
		return nil, fmt.Errorf("%w: %v", ErrCSR, err)
	}
	return csr, nil
}

// checkCSR verifies that the requester holds the key, that the key is strong enough,
// and that the request names nobody else.
func checkCSR(csr *x509.CertificateRequest, id spiffeid.ID) error {
	if csr == nil {
		return fmt.Errorf("%w: none given", ErrCSR)
	}
	if len(csr.Raw) > MaxCSR {
		return fmt.Errorf("%w: %d bytes, at most %d are taken", ErrCSR, len(csr.Raw), MaxCSR)
	}
	if err := checkKey(csr.PublicKey); err != nil {
		return fmt.Errorf("%w: %v", ErrCSR, err)
	}
	want := id.String()
	for _, uri := range csr.URIs {
		if uri.String() != want {
			return fmt.Errorf("%w: it asks for %q, but the requester is %s", ErrIdentity, uri, want)
		}
	}
	if err := csr.CheckSignature(); err != nil {
		return fmt.Errorf("%w: its signature does not fit its key: %v", ErrCSR, err)
	}
	return nil
}

// checkKey takes the keys that Envoy takes in a certificate. The upper limit on RSA
// bounds what verifying costs; Ed25519 is left out because Envoy offers no such
// signature by default.
func checkKey(public any) error {
	const minRSA, maxRSA = 2048, 4096
	switch key := public.(type) {
	case *ecdsa.PublicKey:
		if key.Curve == elliptic.P256() || key.Curve == elliptic.P384() {
			return nil
		}
		return fmt.Errorf("ECDSA key on curve %s; use P-256 or P-384", key.Curve.Params().Name)
	case *rsa.PublicKey:
		if bits := key.N.BitLen(); bits < minRSA || bits > maxRSA {
			return fmt.Errorf("RSA key of %d bits; use P-256, or RSA of %d to %d bits", bits, minRSA, maxRSA)
		}
		return nil
	}
	return fmt.Errorf("key of type %T; use P-256", public)
}
