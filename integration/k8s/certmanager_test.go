//go:build k8s

package k8s

import (
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"testing"
	"time"
)

// companyRoot is an authority that stands above the mesh.
const companyRoot = `
apiVersion: cert-manager.io/v1
kind: Issuer
metadata: {name: itself}
spec: {selfSigned: {}}
---
apiVersion: cert-manager.io/v1
kind: Certificate
metadata: {name: company-root}
spec: {isCA: true, commonName: company, secretName: company-root, privateKey: {algorithm: ECDSA, size: 256, rotationPolicy: Always}, issuerRef: {name: itself}}
---
apiVersion: cert-manager.io/v1
kind: Issuer
metadata: {name: company-root}
spec: {ca: {secretName: company-root}}
`

// TestCertManager runs the mesh by the README's Certificate of a real cert-manager, which
// renews it and replaces the root above it, under a load. The replicas that restart meanwhile
// sign by what all sidecars know.
func TestCertManager(t *testing.T) {
	stop, err := c.RunCertManager(t.Context(), t.Output())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		kubectl(t, "-n", "heddle-system", "delete", "certificates,issuers", "--all")
		kubectl(t, "-n", "heddle-system", "delete", "secret", "company-root")
		if err := stop(); err != nil {
			t.Error(err)
		}
	})
	apply(t, "heddle-system", companyRoot+"---\n"+readmeObject(t, "apiVersion: cert-manager.io/v1\nkind: Certificate\n"))
	kubectl(t, "-n", "heddle-system", "wait", "--for=condition=Ready", "certificate/mesh", "--timeout=80s")
	issuedBy(t, "mesh-issuer")
	ns := namespace(t, true)
	apply(t, ns, server("web", 2, "")+"---"+client("caller"))
	ready(t, ns, "deployment/web", "pod/caller")
	first := issuedNow(t, "mesh-issuer")
	signs(t, ns, "web", first)
	l := startLoad(t, ns, "caller", "http://web/", 100)

	renew(t, "mesh", "mesh-issuer")
	second := issuedNow(t, "mesh-issuer")
	said(t, "signs by an issued certificate", 4) // two replicas, from the start and now
	apply(t, ns, server("late", 1, ""))
	ready(t, ns, "deployment/late")
	signs(t, ns, "late", second)

	renew(t, "company-root", "company-root")
	renew(t, "mesh", "mesh-issuer")
	if third := issuedNow(t, "mesh-issuer"); string(third.AuthorityKeyId) == string(second.AuthorityKeyId) {
		t.Fatal("the mesh's certificate is of the root of before")
	}
	said(t, "trusts the roots of a new issued certificate, and signs by it later", 2)
	restartMesh(t)
	apply(t, ns, server("later", 1, ""))
	ready(t, ns, "deployment/later")
	signs(t, ns, "later", second) // the third is in force in an hour
	for _, service := range []string{"web", "late", "later"} {
		if a := get(t, ns, "caller", "http://"+service+"/"); a.Code != 200 {
			t.Errorf("%s: %+v", service, a)
		}
	}
	l.unharmed()
}

// issuedNow is the certificate in a Secret.
func issuedNow(t *testing.T, secret string) *x509.Certificate {
	t.Helper()
	data, err := base64.StdEncoding.DecodeString(kubectl(t, "-n", "heddle-system", "get", "secret", secret, "-o", `jsonpath={.data.tls\.crt}`))
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(data)
	if block == nil {
		t.Fatalf("Secret %s has no certificate: %s", secret, data)
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

// signs checks which certificate has signed the SVID of an application.
func signs(t *testing.T, ns, app string, want *x509.Certificate) {
	t.Helper()
	if chain := shown(t, ns, podOf(t, ns, app), "8080"); len(chain) < 2 || !chain[1].Equal(want) {
		t.Errorf("%s shows a chain of %d that is signed by %s, want by %s", app, len(chain), chain[0].Issuer, want.SerialNumber)
	}
}

// renew has cert-manager issue a Certificate anew, as its own command does, and waits for it.
func renew(t *testing.T, certificate, secret string) {
	t.Helper()
	before := issuedNow(t, secret)
	kubectl(t, "-n", "heddle-system", "patch", "certificate", certificate, "--subresource=status", "--type=merge", "-p", fmt.Sprintf(
		`{"status": {"conditions": [{"type": "Issuing", "status": "True", "reason": "ManuallyTriggered", "message": "by a test", "lastTransitionTime": %q}]}}`,
		time.Now().UTC().Format(time.RFC3339)))
	eventually(t, "Certificate "+certificate+" is renewed", func() (string, bool) {
		now := issuedNow(t, secret)
		return now.SerialNumber.String(), !now.Equal(before)
	})
}
