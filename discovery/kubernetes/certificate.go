package kubernetes

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/heddle-mesh/heddle/controlplane/mesh"
)

// minRSA is the least size of RSA keys that Envoy takes, in bits.
const minRSA = 2048

// Certificate reads the certificate and the key of a Secret of type kubernetes.io/tls. An
// Envoy that is given what it refuses would wait for better, with all hosts of its
// listener; so only what it takes gets through, in one form. Where the Secret cannot be
// used, last, unless nil, stays, with the fault.
func Certificate(s *corev1.Secret, last *mesh.Certificate, now time.Time) *mesh.Certificate {
	out := &mesh.Certificate{Meta: metaOf(mesh.KindCertificate, s)}
	chain, key, leaf, err := keyPair(s.Data[corev1.TLSCertKey], s.Data[corev1.TLSPrivateKeyKey])
	switch {
	case err != nil:
		out.Fault = err.Error()
		if last != nil {
			out.Chain, out.Key = last.Chain, last.Key
		}
		return out
	case now.After(leaf.NotAfter):
		out.Fault = fmt.Sprintf("has a certificate that expired on %s; renew it", leaf.NotAfter.UTC().Format(time.DateTime))
	}
	out.Chain, out.Key = chain, key
	return out
}

const anew = "make it anew with kubectl create secret tls"

// keyPair checks a certificate and its key, and writes them anew. The error is told after
// the Secret's name.
func keyPair(certificate, private []byte) (chain string, key mesh.PrivateKey, leaf *x509.Certificate, err error) {
	if len(certificate) == 0 || len(private) == 0 {
		return "", "", nil, errors.New("lacks " + corev1.TLSCertKey + " or " + corev1.TLSPrivateKeyKey + "; make it with kubectl create secret tls")
	}
	pair, err := tls.X509KeyPair(certificate, private)
	if err != nil { // its texts name no part of the key
		return "", "", nil, fmt.Errorf("has no certificate with its key: %w; "+anew, err)
	}
	for i, der := range pair.Certificate {
		one, err := x509.ParseCertificate(der)
		if err != nil {
			return "", "", nil, fmt.Errorf("has a chain whose certificate %d cannot be read: %w; "+anew, i+1, err)
		}
		if i == 0 {
			leaf = one
		}
		chain += string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	}
	if err := usableKey(leaf.PublicKey); err != nil {
		return "", "", nil, err
	}
	der, err := x509.MarshalPKCS8PrivateKey(pair.PrivateKey)
	if err != nil {
		return "", "", nil, fmt.Errorf("has a key that cannot be written: %w; "+anew, err)
	}
	return chain, mesh.PrivateKey(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})), leaf, nil
}

// usableKey says which keys Envoy does not take.
func usableKey(public any) error {
	const fix = "use ECDSA with P-256, or RSA with 2048 bits or more"
	switch k := public.(type) {
	case *rsa.PublicKey:
		if k.N.BitLen() < minRSA {
			return fmt.Errorf("has an RSA key of %d bits; %s", k.N.BitLen(), fix)
		}
	case *ecdsa.PublicKey:
		if k.Curve != elliptic.P256() && k.Curve != elliptic.P384() && k.Curve != elliptic.P521() {
			return fmt.Errorf("has a key on curve %s; %s", k.Params().Name, fix)
		}
	default:
		return fmt.Errorf("has a key of type %T; %s", public, fix)
	}
	return nil
}
