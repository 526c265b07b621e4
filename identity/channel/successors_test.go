package channel

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"slices"
	"testing"
	"time"
)

// TestSuccessors: only what a root has signed under its own name, in time, comes after it.
func TestSuccessors(t *testing.T) {
	now := time.Now()
	key := func() *ecdsa.PrivateKey {
		k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	make := func(name string, of *ecdsa.PrivateKey, parent *x509.Certificate, by *ecdsa.PrivateKey, end time.Time) *x509.Certificate {
		template := &x509.Certificate{SerialNumber: big.NewInt(now.UnixNano()), Subject: pkix.Name{CommonName: name}, NotBefore: now.Add(-time.Hour), NotAfter: end,
			IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
		if parent == nil {
			parent = template
		}
		der, err := x509.CreateCertificate(rand.Reader, template, parent, of.Public(), by)
		if err != nil {
			t.Fatal(err)
		}
		cert, err := x509.ParseCertificate(der)
		if err != nil {
			t.Fatal(err)
		}
		return cert
	}
	later := now.Add(time.Hour)
	first, second, third, stranger := key(), key(), key(), key()
	root := make("mesh root", first, nil, first, later)
	link, next := make("mesh root", second, root, first, later), make("mesh root", third, nil, third, later)
	nextLink := make("mesh root", third, make("mesh root", second, nil, second, later), second, later)
	forged := make("mesh root", stranger, make("mesh root", stranger, nil, stranger, later), stranger, later)
	expired := make("mesh root", stranger, root, first, now.Add(-time.Minute))
	below := make("mesh intermediate", stranger, root, first, later)

	got := successors(root, []*x509.Certificate{below, forged, expired, next, nextLink, link, root}, now)
	for _, want := range []*x509.Certificate{root, link, nextLink, next} {
		if !slices.Contains(got, want) {
			t.Errorf("%s of %d is missing", want.Subject, want.SerialNumber)
		}
	}
	if len(got) != 4 {
		t.Errorf("%d certificates, want the root, two links and the last root", len(got))
	}
	if got := successors(root, slices.Repeat([]*x509.Certificate{link}, maxPinnedChain+1), now); len(got) != 1 {
		t.Errorf("of a chain that is too long, %d were looked at", len(got))
	}
}
