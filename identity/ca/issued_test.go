package ca

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
)

// issuer is somebody else's authority, as cert-manager's.
type issuer struct {
	t    *testing.T
	cert *x509.Certificate
	key  crypto.Signer
}

func newIssuer(t *testing.T, name string) issuer {
	key := newKey(t)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(1000 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	return issuer{t, sign(t, template, template, key.Public(), key), key}
}

func sign(t *testing.T, template, parent *x509.Certificate, public crypto.PublicKey, key crypto.Signer) *x509.Certificate {
	t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, template, parent, public, key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

// issue makes the three parts of a Secret.
func (i issuer) issue(life time.Duration, key crypto.Signer, change ...func(*x509.Certificate)) (source string, tlsCrt, tlsKey, caCrt []byte) {
	i.t.Helper()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: "mesh"}, NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().Add(life),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
	}
	for _, c := range change {
		c(template)
	}
	cert := sign(i.t, template, i.cert, key.Public(), i.key)
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		i.t.Fatal(err)
	}
	return "Secret x", certPEM(cert), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), certPEM(i.cert)
}

func certPEM(c *x509.Certificate) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})
}

func (i issuer) mustIssue(life time.Duration) *Issued {
	i.t.Helper()
	issued, err := ParseIssued(i.issue(life, newKey(i.t)))
	if err != nil {
		i.t.Fatal(err)
	}
	return issued
}

// TestIssued follows a workload that renews at half life through renewals and a change of
// the root: at every minute its SVID verifies with the newest bundle, and a new SVID with
// the bundle that it got last.
func TestIssued(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		first, second := newIssuer(t, "first"), newIssuer(t, "second")
		c, err := OpenIssued(testConfig(), nil, first.mustIssue(500*time.Hour))
		if err != nil {
			t.Fatal(err)
		}
		id := mustID(t, "spiffe://shop.example/ns/default/sa/api")
		chain, bundle := mustSign(t, c, id), c.Bundle()
		renewed := first.mustIssue(500 * time.Hour)
		for minute := range 300 {
			switch minute {
			case 10:
				err = c.Reissue(renewed)
			case 20:
				err = c.Reissue(second.mustIssue(500 * time.Hour))
			}
			if err != nil {
				t.Fatal(err)
			}
			if minute%30 == 29 {
				chain, bundle = mustSign(t, c, id), c.Bundle()
			}
			now := mustSign(t, c, id)
			if _, _, err := x509svid.Verify(now, bundle); err != nil {
				t.Fatalf("minute %d: a new SVID against the workload's bundle: %v", minute, err)
			}
			if _, _, err := x509svid.Verify(chain, c.Bundle()); err != nil {
				t.Fatalf("minute %d: the workload's SVID against the newest bundle: %v", minute, err)
			}
			if minute == 10 && now[1].CheckSignatureFrom(first.cert) != nil || minute == 10 && !now[1].Equal(renewed.chain[0]) {
				t.Errorf("after a renewal by the same root it signs by %s", now[1].Subject)
			}
			time.Sleep(time.Minute)
		}
		if b := c.Bundle(); b.HasX509Authority(first.cert) || !b.HasX509Authority(second.cert) || len(b.X509Authorities()) != 1 {
			t.Errorf("in the end %d roots are trusted", len(b.X509Authorities()))
		}
		if err := c.PrepareRoot(); err == nil {
			t.Error("it makes a root of its own")
		}
		if e := c.Expiry(); !e.Issued || e.Intermediate.IsZero() {
			t.Errorf("expiry %+v", e)
		}
	})
}

func TestIssuedExpires(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, err := OpenIssued(testConfig(), nil, newIssuer(t, "root").mustIssue(90*time.Minute))
		if err != nil {
			t.Fatal(err)
		}
		id := mustID(t, "spiffe://shop.example/ns/default/sa/api")
		time.Sleep(time.Hour)
		if chain := mustSign(t, c, id); chain[0].NotAfter.After(chain[1].NotAfter) {
			t.Error("an SVID outlives what signed it")
		}
		time.Sleep(time.Hour)
		if _, err := c.Sign(newCSR(t, newKey(t)), id); err == nil || !strings.Contains(err.Error(), "its issuer has not renewed it") {
			t.Errorf("signs after its end: %v", err)
		}
	})
}

// TestIssuedBadly: what cannot sign is refused with the part that is wrong, and what was
// there goes on.
func TestIssuedBadly(t *testing.T) {
	good, other := newIssuer(t, "good"), newIssuer(t, "other")
	c, err := OpenIssued(testConfig(), nil, good.mustIssue(100*time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	_, crt, key, root := good.issue(100*time.Hour, newKey(t))
	_, _, otherKey, otherRoot := other.issue(time.Hour, newKey(t))
	weak, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	with := func(change func(*x509.Certificate)) [3][]byte {
		_, crt, key, root := good.issue(100*time.Hour, newKey(t), change)
		return [3][]byte{crt, key, root}
	}
	for want, parts := range map[string][3][]byte{
		"tls.crt: has no certificate":            {nil, key, root},
		"tls.crt: block 1 is no certificate":     {key, key, root},
		"tls.key: has no private key":            {crt, crt[:0], root},
		"tls.key: is no private key":             {crt, crt, root},
		"tls.key: is not the key of the first":   {crt, otherKey, root},
		"ca.crt: has no certificate":             {crt, key, nil},
		"does not lead to a root in ca.crt":      {crt, key, otherRoot},
		"a Certificate of cert-manager needs":    with(func(c *x509.Certificate) { c.IsCA = false }),
		"expired on":                             with(func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Second) }),
		"is of spiffe://other.example, and this": with(func(c *x509.Certificate) { c.URIs = []*url.URL{{Scheme: "spiffe", Host: "other.example"}} }),
	} {
		issued, err := ParseIssued("Secret x", parts[0], parts[1], parts[2])
		if err == nil {
			err = c.Reissue(issued)
		}
		if err == nil || !strings.Contains(err.Error(), want) || !strings.HasPrefix(err.Error(), "Secret x: ") {
			t.Errorf("got %v, want %s", err, want)
		}
	}
	id := mustID(t, "spiffe://shop.example/ns/default/sa/api")
	if _, _, err := x509svid.Verify(mustSign(t, c, id), c.Bundle()); err != nil {
		t.Errorf("afterwards: %v", err)
	}
	p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for name, key := range map[string]crypto.Signer{"RSA": weak, "P-384": p384} {
		issued, err := ParseIssued(good.issue(100*time.Hour, key))
		if err == nil {
			err = c.Reissue(issued)
		}
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if _, _, err := x509svid.Verify(mustSign(t, c, id), c.Bundle()); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}
