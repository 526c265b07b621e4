package ca

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"fmt"
	"math/big"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/spiffe/go-spiffe/v2/svid/x509svid"

	"github.com/heddle-mesh/heddle/identity/spiffeid"
)

func testConfig() Config {
	config := DefaultConfig()
	config.TrustDomain = "shop.example"
	return config
}

func mustID(t testing.TB, uri string) spiffeid.ID {
	t.Helper()
	id, err := spiffeid.Parse(uri)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func mustOpen(t testing.TB, dir string, config Config) *CA {
	t.Helper()
	c, err := Open(dir, config)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func newKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func newCSR(t testing.TB, key crypto.Signer, uris ...string) *x509.CertificateRequest {
	t.Helper()
	template := &x509.CertificateRequest{}
	for _, uri := range uris {
		u, err := url.Parse(uri)
		if err != nil {
			t.Fatal(err)
		}
		template.URIs = append(template.URIs, u)
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, template, key)
	if err != nil {
		t.Fatal(err)
	}
	csr, err := ParseCSR(der)
	if err != nil {
		t.Fatal(err)
	}
	return csr
}

func mustSign(t testing.TB, c *CA, id spiffeid.ID) []*x509.Certificate {
	t.Helper()
	chain, err := c.Sign(newCSR(t, newKey(t), id.String()), id)
	if err != nil {
		t.Fatal(err)
	}
	return chain
}

func TestSignedLeafFollowsTheStandard(t *testing.T) {
	c := mustOpen(t, filepath.Join(t.TempDir(), "ca"), testConfig())
	id := mustID(t, "spiffe://shop.example/ns/default/sa/api")
	chain := mustSign(t, c, id)
	got, _, err := x509svid.Verify(chain, c)
	if err != nil || got.String() != id.String() {
		t.Fatalf("go-spiffe verifies it as %v, %v", got, err)
	}
	leaf := chain[0]
	if leaf.IsCA || leaf.KeyUsage != x509.KeyUsageDigitalSignature || len(leaf.URIs) != 1 || len(leaf.DNSNames) != 0 {
		t.Errorf("leaf: CA %v, usage %v, URIs %v, DNS %v", leaf.IsCA, leaf.KeyUsage, leaf.URIs, leaf.DNSNames)
	}
	for _, usage := range []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth} {
		intermediates := x509.NewCertPool()
		intermediates.AddCert(chain[1])
		roots := x509.NewCertPool()
		roots.AddCert(c.Bundle().X509Authorities()[0])
		if _, err := leaf.Verify(x509.VerifyOptions{Roots: roots, Intermediates: intermediates, KeyUsages: []x509.ExtKeyUsage{usage}}); err != nil {
			t.Errorf("usage %v: %v", usage, err)
		}
	}
	if !leaf.NotBefore.Before(time.Now()) || leaf.NotAfter.After(time.Now().Add(time.Hour)) {
		t.Errorf("valid from %v to %v", leaf.NotBefore, leaf.NotAfter)
	}
}

func TestExtensionsOfTheRequestAreIgnored(t *testing.T) {
	c := mustOpen(t, filepath.Join(t.TempDir(), "ca"), testConfig())
	id := mustID(t, "spiffe://shop.example/ns/default/sa/api")
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{
		DNSNames: []string{"db.default.svc.cluster.local"}, EmailAddresses: []string{"root@shop.example"},
	}, newKey(t))
	if err != nil {
		t.Fatal(err)
	}
	csr, err := ParseCSR(der)
	if err != nil {
		t.Fatal(err)
	}
	chain, err := c.Sign(csr, id)
	if err != nil {
		t.Fatal(err)
	}
	if leaf := chain[0]; len(leaf.DNSNames) != 0 || len(leaf.EmailAddresses) != 0 {
		t.Errorf("the leaf took names of the request: %v %v", leaf.DNSNames, leaf.EmailAddresses)
	}
}

func TestReopenKeepsTheRoot(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "ca")
	first := mustOpen(t, dir, testConfig())
	chain := mustSign(t, first, mustID(t, "spiffe://shop.example/ns/default/sa/api"))
	second := mustOpen(t, dir, testConfig())
	if !first.Bundle().Equal(second.Bundle()) {
		t.Error("the bundle changed")
	}
	if _, _, err := x509svid.Verify(chain, second); err != nil {
		t.Errorf("an SVID from before the restart: %v", err)
	}
	for path, mode := range map[string]os.FileMode{dir: 0o700, filepath.Join(dir, rootFile): 0o600} {
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != mode {
			t.Errorf("%s: %v %v, want mode %o", path, info.Mode(), err, mode)
		}
	}
}

func TestOpenRefuses(t *testing.T) {
	for _, tc := range []struct {
		name   string
		spoil  func(t *testing.T, root string, config *Config)
		expect string
	}{
		{"a root that others can read", func(t *testing.T, root string, _ *Config) {
			if err := os.Chmod(root, 0o644); err != nil {
				t.Fatal(err)
			}
		}, "chmod 600"},
		{"another trust domain", func(_ *testing.T, _ string, config *Config) { config.TrustDomain = "other.example" }, "trust domain"},
		{"half a file", func(t *testing.T, root string, _ *Config) {
			data, _ := os.ReadFile(root)
			if err := os.WriteFile(root, data[:len(data)/2], 0o600); err != nil {
				t.Fatal(err)
			}
		}, rootFile},
		{"no trust domain", func(_ *testing.T, _ string, config *Config) { config.TrustDomain = "" }, "trust domain"},
		{"a short intermediate", func(_ *testing.T, _ string, config *Config) { config.IntermediateTTL = config.SVIDTTL }, "intermediate TTL"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			dir, config := filepath.Join(t.TempDir(), "ca"), testConfig()
			mustOpen(t, dir, config)
			tc.spoil(t, filepath.Join(dir, rootFile), &config)
			if _, err := Open(dir, config); err == nil || !strings.Contains(err.Error(), tc.expect) {
				t.Errorf("error %v, want one with %q", err, tc.expect)
			}
		})
	}
}

func TestIntermediateIsReplacedAtHalfItsLife(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "ca")
	synctest.Test(t, func(t *testing.T) {
		c := mustOpen(t, dir, testConfig())
		id := mustID(t, "spiffe://shop.example/ns/default/sa/api")
		first := mustSign(t, c, id)
		time.Sleep(c.config.IntermediateTTL/2 - time.Second)
		last := mustSign(t, c, id)
		if !last[1].Equal(first[1]) {
			t.Error("the intermediate was replaced before half its life")
		}
		time.Sleep(time.Second)
		next := mustSign(t, c, id)
		if next[1].Equal(first[1]) {
			t.Error("the intermediate was not replaced at half its life")
		}
		if _, _, err := x509svid.Verify(last, c); err != nil {
			t.Errorf("an SVID of the former intermediate: %v", err)
		}
		if !last[0].NotAfter.Before(last[1].NotAfter) {
			t.Error("the SVID outlives its intermediate")
		}
	})
}

func TestNothingOutlivesTheRoot(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "ca")
	synctest.Test(t, func(t *testing.T) {
		config := testConfig()
		config.SVIDTTL, config.IntermediateTTL, config.RootTTL = time.Hour, 4*time.Hour, 16*time.Hour
		c := mustOpen(t, dir, config)
		id := mustID(t, "spiffe://shop.example/ns/default/sa/api")
		if w := c.Expiry().Warning(time.Now()); w != "" {
			t.Errorf("a new root warns: %s", w)
		}
		time.Sleep(15*time.Hour + 30*time.Minute)
		chain := mustSign(t, c, id)
		root := c.Expiry().Root
		if chain[0].NotAfter.After(root) || chain[1].NotAfter.After(root) {
			t.Errorf("SVID until %v, intermediate until %v, root until %v", chain[0].NotAfter, chain[1].NotAfter, root)
		}
		if w := c.Expiry().Warning(time.Now()); !strings.Contains(w, "rotate it now") {
			t.Errorf("warning %q", w)
		}
		time.Sleep(time.Hour)
		if _, err := c.Sign(newCSR(t, newKey(t)), id); err == nil || !strings.Contains(err.Error(), "expired") {
			t.Errorf("signing with an expired root: %v", err)
		}
		if _, err := Open(dir, config); err == nil || !strings.Contains(err.Error(), "expired") {
			t.Errorf("opening an expired root: %v", err)
		}
	})
}

// TestRotateRoot follows one workload that renews at half life, and checks at every
// minute that its SVID verifies with a bundle as old as its own SVID.
func TestRotateRoot(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "ca")
	synctest.Test(t, func(t *testing.T) {
		c := mustOpen(t, dir, testConfig())
		id := mustID(t, "spiffe://shop.example/ns/default/sa/api")
		start, firstRoot := time.Now(), c.Bundle().X509Authorities()[0]
		chain, bundle := mustSign(t, c, id), c.Bundle()
		steps := map[int]struct {
			step  func(*CA) error
			early bool
			roots int
		}{
			5:   {(*CA).ActivateRoot, true, 1},
			10:  {(*CA).PrepareRoot, false, 2},
			11:  {(*CA).PrepareRoot, false, 2},
			40:  {(*CA).ActivateRoot, true, 2},
			75:  {(*CA).ActivateRoot, false, 2},
			100: {(*CA).RetireRoots, true, 2},
			140: {(*CA).RetireRoots, true, 2}, // a clock that is behind takes its SVIDs still
			150: {(*CA).RetireRoots, false, 1},
		}
		for minute := range 200 {
			if s, ok := steps[minute]; ok {
				if err := s.step(c); (err != nil) != s.early {
					t.Fatalf("minute %d: %v", minute, err)
				}
				c = mustOpen(t, dir, c.config) // a restart between the steps loses nothing
				if n := len(c.Bundle().X509Authorities()); n != s.roots {
					t.Fatalf("minute %d: %d roots, want %d", minute, n, s.roots)
				}
			}
			if minute%30 == 29 {
				chain, bundle = mustSign(t, c, id), c.Bundle()
			}
			if _, _, err := x509svid.Verify(mustSign(t, c, id), bundle); err != nil {
				t.Fatalf("minute %d: a new SVID against the workload's bundle: %v", minute, err)
			}
			if _, _, err := x509svid.Verify(chain, c.Bundle()); err != nil {
				t.Fatalf("minute %d: the workload's SVID against the newest bundle: %v", minute, err)
			}
			time.Sleep(time.Minute)
		}
		if c.Bundle().HasX509Authority(firstRoot) {
			t.Errorf("the first root is still trusted after %v", time.Since(start))
		}
	})
}

func TestKeysAreNeverPrinted(t *testing.T) {
	c := mustOpen(t, filepath.Join(t.TempDir(), "ca"), testConfig())
	key := c.current.Load().root.key.(*ecdsa.PrivateKey)
	raw, err := key.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	secrets := []string{fmt.Sprintf("%x", raw), new(big.Int).SetBytes(raw).String(), fmt.Sprint(raw)}
	for _, value := range []any{c, c.current.Load(), *c.current.Load(), c.current.Load().root, struct{ C *CA }{c}} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x", "%d"} {
			out := fmt.Sprintf(verb, value)
			for _, secret := range secrets {
				if strings.Contains(out, secret) {
					t.Errorf("%s of %T prints the key", verb, value)
				}
			}
		}
	}
}

func TestErrorsHaveKinds(t *testing.T) {
	c := mustOpen(t, filepath.Join(t.TempDir(), "ca"), testConfig())
	if err := c.ActivateRoot(); err == nil {
		t.Error("activated a root that was never prepared")
	}
	if err := c.PrepareRoot(); err != nil {
		t.Fatal(err)
	}
	if err := c.ActivateRoot(); !errors.Is(err, ErrTooEarly) {
		t.Errorf("ActivateRoot at once: %v", err)
	}
}
