package ca

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"net/url"
	"time"
)

// keyPair is a CA certificate and its key. Used by pointer only, so that printing a
// struct that holds one shows an address; and it redacts itself.
type keyPair struct {
	cert *x509.Certificate
	key  crypto.Signer // nil where only the certificate is ours
}

func (p *keyPair) Format(f fmt.State, _ rune) { fmt.Fprint(f, "keyPair(redacted)") }

// newAuthority makes a key and a CA certificate for it, signed by parent, or by itself
// when parent is nil. Per the X509-SVID standard, section 4, a signing certificate has
// the CA flag, keyCertSign, and at most the trust domain itself as its SPIFFE ID.
func newAuthority(trustDomain, name string, start, end time.Time, parent *keyPair) (*keyPair, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make %s key: %w", name, err)
	}
	template := &x509.Certificate{
		Subject:               pkix.Name{Organization: []string{"Heddle"}, CommonName: trustDomain + " " + name},
		URIs:                  []*url.URL{{Scheme: "spiffe", Host: trustDomain}},
		NotBefore:             start,
		NotAfter:              end,
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		BasicConstraintsValid: true,
		IsCA:                  true,
		MaxPathLen:            1,
	}
	signer := &keyPair{cert: template, key: key}
	if parent != nil {
		signer = parent
		template.MaxPathLen, template.MaxPathLenZero = 0, true
	}
	der, err := x509.CreateCertificate(rand.Reader, template, signer.cert, key.Public(), signer.key)
	if err != nil {
		return nil, fmt.Errorf("sign %s certificate: %w", name, err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("parse new %s certificate: %w", name, err)
	}
	return &keyPair{cert: cert, key: key}, nil
}

const (
	certificateBlock = "CERTIFICATE"
	keyBlock         = "PRIVATE KEY" // PKCS #8, RFC 5958
)

func (p *keyPair) marshal() ([]byte, error) {
	key, err := x509.MarshalPKCS8PrivateKey(p.key)
	if err != nil {
		return nil, fmt.Errorf("encode key: %w", err)
	}
	out := pem.EncodeToMemory(&pem.Block{Type: certificateBlock, Bytes: p.cert.Raw})
	return append(out, pem.EncodeToMemory(&pem.Block{Type: keyBlock, Bytes: key})...), nil
}

// parseKeyPair reads what marshal wrote: one certificate, then its P-256 key. Errors
// never quote the input, which is secret.
func parseKeyPair(data []byte) (*keyPair, error) {
	certPEM, rest := pem.Decode(data)
	if certPEM == nil || certPEM.Type != certificateBlock {
		return nil, errors.New("the first PEM block is not a certificate")
	}
	cert, err := x509.ParseCertificate(certPEM.Bytes)
	if err != nil {
		return nil, fmt.Errorf("parse certificate: %w", err)
	}
	keyPEM, rest := pem.Decode(rest)
	if keyPEM == nil || keyPEM.Type != keyBlock {
		return nil, errors.New("the second PEM block is not a private key")
	}
	if len(rest) > 0 {
		return nil, errors.New("something follows the private key")
	}
	parsed, err := x509.ParsePKCS8PrivateKey(keyPEM.Bytes)
	if err != nil {
		return nil, errors.New("the private key is not valid PKCS #8")
	}
	key, ok := parsed.(*ecdsa.PrivateKey)
	if !ok || key.Curve != elliptic.P256() {
		return nil, errors.New("the private key is not a P-256 key")
	}
	if !key.PublicKey.Equal(cert.PublicKey) {
		return nil, errors.New("the private key does not belong to the certificate")
	}
	if !cert.IsCA || cert.KeyUsage&x509.KeyUsageCertSign == 0 {
		return nil, errors.New("the certificate is not one of a certificate authority")
	}
	return &keyPair{cert: cert, key: key}, nil
}
