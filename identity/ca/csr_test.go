package ca

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"errors"
	"path/filepath"
	"strings"
	"testing"
)

func TestSignRefuses(t *testing.T) {
	c := mustOpen(t, filepath.Join(t.TempDir(), "ca"), testConfig())
	const api, db = "spiffe://shop.example/ns/default/sa/api", "spiffe://shop.example/ns/default/sa/db"
	forged := newCSR(t, newKey(t), api)
	forged.RawTBSCertificateRequest = bytes.Clone(forged.RawTBSCertificateRequest)
	forged.RawTBSCertificateRequest[20] ^= 1
	_, edKey, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	huge := newCSR(t, newKey(t))
	huge.Raw = make([]byte, MaxCSR+1)
	for _, tc := range []struct {
		name string
		csr  *x509.CertificateRequest
		id   string
		kind error
		want []string
	}{
		{"another's identity", newCSR(t, newKey(t), db), api, ErrIdentity, []string{api, db}},
		{"its own and another's", newCSR(t, newKey(t), api, db), api, ErrIdentity, []string{api, db}},
		{"a URI that is no SPIFFE ID", newCSR(t, newKey(t), "https://shop.example/"), api, ErrIdentity, []string{"https://shop.example/"}},
		{"another trust domain", newCSR(t, newKey(t)), "spiffe://other.example/ns/default/sa/api", ErrIdentity, []string{"other.example", "shop.example"}},
		{"bad signature", forged, api, ErrCSR, []string{"signature"}},
		{"short RSA key", newCSR(t, rsaKey(t, 1024)), api, ErrCSR, []string{"1024"}},
		{"Ed25519", newCSR(t, edKey), api, ErrCSR, []string{"P-256"}},
		{"P-224", newCSR(t, curveKey(t, elliptic.P224())), api, ErrCSR, []string{"P-224"}},
		{"huge", huge, api, ErrCSR, []string{"8193 bytes"}},
		{"none", nil, api, ErrCSR, nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			chain, err := c.Sign(tc.csr, mustID(t, tc.id))
			if !errors.Is(err, tc.kind) || chain != nil {
				t.Fatalf("Sign = %v, %v; want kind %v", chain, err, tc.kind)
			}
			for _, want := range tc.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("error %q lacks %q", err, want)
				}
			}
		})
	}
}

func TestSignTakes(t *testing.T) {
	c := mustOpen(t, filepath.Join(t.TempDir(), "ca"), testConfig())
	id := mustID(t, "spiffe://shop.example/ns/default/sa/api")
	for name, key := range map[string]crypto.Signer{
		"P-256": newKey(t), "P-384": curveKey(t, elliptic.P384()), "RSA 2048": rsaKey(t, 2048),
	} {
		if _, err := c.Sign(newCSR(t, key), id); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func rsaKey(t *testing.T, bits int) crypto.Signer {
	t.Helper()
	t.Setenv("GODEBUG", "rsa1024min=0") // to make the weak key that must be refused
	key, err := rsa.GenerateKey(rand.Reader, bits)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func curveKey(t *testing.T, curve elliptic.Curve) crypto.Signer {
	t.Helper()
	key, err := ecdsa.GenerateKey(curve, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func TestParseCSRRefuses(t *testing.T) {
	good := newCSR(t, newKey(t)).Raw
	for name, der := range map[string][]byte{
		"nothing": nil, "garbage": []byte("not a request"), "half": good[:len(good)/2],
		"something behind it": append(bytes.Clone(good), 0), "huge": make([]byte, 1<<20),
	} {
		if _, err := ParseCSR(der); !errors.Is(err, ErrCSR) {
			t.Errorf("%s: %v, want ErrCSR", name, err)
		}
	}
}

func FuzzCSR(f *testing.F) {
	c := mustOpen(f, filepath.Join(f.TempDir(), "ca"), testConfig())
	id := mustID(f, "spiffe://shop.example/ns/default/sa/api")
	f.Add(newCSR(f, newKey(f), id.String()).Raw)
	f.Add([]byte{0x30, 0x82})
	f.Fuzz(func(t *testing.T, der []byte) {
		csr, err := ParseCSR(der)
		if err != nil {
			return
		}
		chain, err := c.Sign(csr, id)
		if err != nil {
			return
		}
		if leaf := chain[0]; leaf.IsCA || len(leaf.URIs) != 1 || leaf.URIs[0].String() != id.String() {
			t.Fatalf("signed CA %v, names %v", leaf.IsCA, leaf.URIs)
		}
	})
}

func FuzzRootFiles(f *testing.F) {
	c := mustOpen(f, filepath.Join(f.TempDir(), "ca"), testConfig())
	data, err := c.current.Load().root.marshal()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	f.Add([]byte("-----BEGIN CERTIFICATE-----\nReplaced: x\n\n-----END CERTIFICATE-----\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		if pair, err := parseKeyPair(data); err == nil && !pair.cert.IsCA {
			t.Fatal("took a certificate that is not a CA's")
		}
		if old, err := parseOldRoots(data); err == nil {
			for _, o := range old {
				if o.replaced.IsZero() && o.cert == nil {
					t.Fatal("took a root without a time")
				}
			}
		}
	})
}

// BenchmarkSign is one SVID from the bytes of its request: target at most 250 us, that
// is 4,000 a second a core.
func BenchmarkSign(b *testing.B) {
	c := mustOpen(b, filepath.Join(b.TempDir(), "ca"), testConfig())
	id := mustID(b, "spiffe://shop.example/ns/default/sa/api")
	der := newCSR(b, newKey(b), id.String()).Raw
	b.ReportAllocs()
	for b.Loop() {
		csr, err := ParseCSR(der)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := c.Sign(csr, id); err != nil {
			b.Fatal(err)
		}
	}
}
