package kubernetes

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"math/big"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// tlsSecret is a Secret with a certificate of that key.
func tlsSecret(t *testing.T, key crypto.Signer, notAfter time.Time) *corev1.Secret {
	t.Helper()
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: notAfter}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	s := &corev1.Secret{Type: corev1.SecretTypeTLS, Data: map[string][]byte{
		corev1.TLSCertKey:       pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		corev1.TLSPrivateKeyKey: pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}),
	}}
	s.Namespace, s.Name = "shop", "tls"
	return s
}

// must gives a key; its making fails where the machine is broken.
func must[K any](k K, err error) K {
	if err != nil {
		panic(err)
	}
	return k
}

// TestCertificate: what Envoy refuses is told with its fix, and the last good one stays.
func TestCertificate(t *testing.T) {
	now := time.Now()
	later := now.Add(time.Hour)
	p256 := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	good := Certificate(tlsSecret(t, p256, later), nil, now)
	if good.Chain == "" || good.Key == "" || good.Fault != "" {
		t.Fatalf("a good one: %+v", good)
	}
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	foreign := tlsSecret(t, p256, later)
	foreign.Data[corev1.TLSPrivateKeyKey] = tlsSecret(t, must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader)), later).Data[corev1.TLSPrivateKeyKey]
	broken := tlsSecret(t, p256, later)
	broken.Data[corev1.TLSCertKey] = append(broken.Data[corev1.TLSCertKey], pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte("rubbish")})...)
	for _, c := range []struct {
		name   string
		secret *corev1.Secret
		says   string
	}{
		{"empty", &corev1.Secret{}, "lacks tls.crt or tls.key; make it with"},
		{"another key", foreign, "private key does not match public key; make it anew"},
		{"a broken chain", broken, "has a chain whose certificate 2 cannot be read"},
		{"a curve", tlsSecret(t, must(ecdsa.GenerateKey(elliptic.P224(), rand.Reader)), later), "has a key on curve P-224; use ECDSA"},
		{"a short key", tlsSecret(t, must(rsa.GenerateKey(rand.Reader, 1024)), later), "has an RSA key of 1024 bits; use ECDSA"},
		{"a kind of key", tlsSecret(t, ed, later), "has a key of type ed25519.PublicKey; use ECDSA"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := Certificate(c.secret, nil, now); got.Chain != "" || got.Key != "" || !strings.Contains(got.Fault, c.says) {
				t.Errorf("alone: %q, %q", got.Fault, got.Chain)
			}
			if got := Certificate(c.secret, good, now); got.Chain != good.Chain || got.Key != good.Key || !strings.Contains(got.Fault, c.says) {
				t.Errorf("after a good one: %q, %q", got.Fault, got.Chain)
			}
		})
	}
	if got := Certificate(tlsSecret(t, p256, now.Add(-time.Minute)), nil, now); got.Chain == "" || !strings.Contains(got.Fault, "expired on") {
		t.Errorf("an old one: %+v; want it shown, and told", got)
	}
	if text := fmt.Sprintf("%v %+v %#v", good, good, good.Key); strings.Contains(text, "PRIVATE KEY") {
		t.Errorf("the key shows itself: %s", text)
	}
}
