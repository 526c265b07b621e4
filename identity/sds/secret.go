package sds

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"fmt"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	"google.golang.org/protobuf/types/known/anypb"
)

const (
	// SVIDName is the secret with the workload's certificate chain and key.
	SVIDName = "default"
	// BundleName is the secret with the roots to verify peers by.
	BundleName = "ROOTCA"

	typeURL = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret"
)

// secret is an encoded resource. Its version is a hash of certificates only: a hash of
// the key would be something about the key in logs.
type secret struct {
	name, version string
	body          *anypb.Any
}

// Format keeps the key out of logs whatever the verb.
func (s *secret) Format(f fmt.State, _ rune) { fmt.Fprintf(f, "secret(%s %s)", s.name, s.version) }

func svidSecret(svid *x509svid.SVID) (*secret, error) {
	chain, key, err := svid.Marshal()
	if err != nil {
		return nil, fmt.Errorf("encode SVID: %w", err)
	}
	return newSecret(versionOf(svid.Certificates), &tlsv3.Secret{
		Name: SVIDName,
		Type: &tlsv3.Secret_TlsCertificate{TlsCertificate: &tlsv3.TlsCertificate{
			CertificateChain: inline(chain), PrivateKey: inline(key),
		}},
	})
}

func bundleSecret(bundle *x509bundle.Bundle) (*secret, error) {
	roots, err := bundle.Marshal()
	if err != nil {
		return nil, fmt.Errorf("encode bundle: %w", err)
	}
	return newSecret(versionOf(bundle.X509Authorities()), &tlsv3.Secret{
		Name: BundleName,
		Type: &tlsv3.Secret_ValidationContext{ValidationContext: &tlsv3.CertificateValidationContext{TrustedCa: inline(roots)}},
	})
}

func newSecret(version string, message *tlsv3.Secret) (*secret, error) {
	body, err := anypb.New(message)
	if err != nil {
		return nil, fmt.Errorf("encode secret %s: %v", message.GetName(), err)
	}
	return &secret{message.GetName(), version, body}, nil
}

func inline(data []byte) *corev3.DataSource {
	return &corev3.DataSource{Specifier: &corev3.DataSource_InlineBytes{InlineBytes: data}}
}

func versionOf(certs []*x509.Certificate) string {
	hash := sha256.New()
	for _, cert := range certs {
		hash.Write(cert.Raw)
	}
	return hex.EncodeToString(hash.Sum(nil)[:8])
}
