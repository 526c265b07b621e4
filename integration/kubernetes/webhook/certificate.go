package webhook

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"time"
)

const (
	certificateLife = 90 * 24 * time.Hour
	skew            = 10 * time.Minute // of the API server's clock and ours, as in identity/ca
	// Keys of the Secret: those of type kubernetes.io/tls, and the CAs that clients must know.
	certKey, keyKey, bundleKey = "tls.crt", "tls.key", "ca.crt"
)

// certificate is what the Secret holds.
type certificate struct {
	serving *tls.Certificate
	bundle  []byte // PEM; the CA of serving first, then the one before
}

func (c *certificate) same(other *certificate) bool {
	return other != nil && bytes.Equal(c.serving.Leaf.Raw, other.serving.Leaf.Raw)
}

// renewAt is when a certificate is replaced: at two thirds of its life.
func (c *certificate) renewAt() time.Time {
	leaf := c.serving.Leaf
	return leaf.NotAfter.Add(-leaf.NotAfter.Sub(leaf.NotBefore) / 3)
}

// issue makes a CA, whose key is dropped at once, and a certificate for hosts. before is
// the CA that the new one follows.
func issue(hosts []string, now time.Time, before []byte) (map[string][]byte, error) {
	caKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	ca := &x509.Certificate{
		Subject: pkix.Name{CommonName: "heddle webhooks"}, NotBefore: now.Add(-skew), NotAfter: now.Add(certificateLife),
		IsCA: true, BasicConstraintsValid: true, MaxPathLenZero: true, KeyUsage: x509.KeyUsageCertSign,
	}
	caDER, err := sign(ca, ca, caKey, &caKey.PublicKey)
	if err != nil {
		return nil, err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	leaf := &x509.Certificate{
		Subject: pkix.Name{CommonName: hosts[0]}, NotBefore: ca.NotBefore, NotAfter: ca.NotAfter,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	for _, host := range hosts {
		if ip := net.ParseIP(host); ip != nil {
			leaf.IPAddresses = append(leaf.IPAddresses, ip)
		} else {
			leaf.DNSNames = append(leaf.DNSNames, host)
		}
	}
	leafDER, err := sign(leaf, ca, caKey, &key.PublicKey)
	if err != nil {
		return nil, err
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	return map[string][]byte{
		certKey:   block("CERTIFICATE", leafDER),
		keyKey:    block("PRIVATE KEY", keyDER),
		bundleKey: append(block("CERTIFICATE", caDER), before...),
	}, nil
}

func sign(template, parent *x509.Certificate, key *ecdsa.PrivateKey, public *ecdsa.PublicKey) ([]byte, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, err
	}
	template.SerialNumber = serial
	return x509.CreateCertificate(rand.Reader, template, parent, public, key)
}

// parse reads what a Secret holds. A certificate that its own bundle does not vouch for
// would be refused by the API server.
func parse(data map[string][]byte) (*certificate, error) {
	if len(data) == 0 {
		return nil, errors.New("no certificate")
	}
	pair, err := tls.X509KeyPair(data[certKey], data[keyKey])
	if err != nil {
		return nil, fmt.Errorf("certificate of the webhooks: %w", err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(data[bundleKey])
	if _, err := pair.Leaf.Verify(x509.VerifyOptions{Roots: roots, CurrentTime: pair.Leaf.NotBefore}); err != nil {
		return nil, fmt.Errorf("certificate of the webhooks: %w", err)
	}
	return &certificate{&pair, data[bundleKey]}, nil
}

func block(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}

// firstBlock is the first certificate of a bundle, in PEM.
func firstBlock(bundle []byte) []byte {
	b, _ := pem.Decode(bundle)
	if b == nil {
		return nil
	}
	return block(b.Type, b.Bytes)
}
