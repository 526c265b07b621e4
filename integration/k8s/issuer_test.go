//go:build k8s

package k8s

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"math/big"
	"strings"
	"testing"
	"time"
)

// TestIssuer runs the mesh by an authority that somebody else issues, in a Secret as
// cert-manager writes it: renewed under a load, and spoilt for a while.
func TestIssuer(t *testing.T) {
	root := newAuthority(t, "root", nil)
	const secret = "mesh-issuer"
	first, second := newAuthority(t, "mesh 1", root), newAuthority(t, "mesh 2", root)
	first.store(t, secret, first)
	issuedBy(t, secret)
	ns := namespace(t, true)
	apply(t, ns, server("web", 2, "")+"---"+client("caller"))
	ready(t, ns, "deployment/web", "pod/caller")
	if by := signer(t, ns, podOf(t, ns, "web"), "8080"); by != "mesh 1" {
		t.Errorf("web's SVID is signed by %q", by)
	}
	if out, err := runHeddle(t, "check"); err != nil || !strings.Contains(out, "is in Secret heddle-system/"+secret) {
		t.Errorf("heddle check: %v: %s", err, out)
	}
	l := startLoad(t, ns, "caller", "http://web/", 100)

	first.store(t, secret, second) // its key is another's
	said(t, "Secret heddle-system/"+secret+": tls.key: is not the key of the first certificate in tls.crt", 2)
	apply(t, ns, server("meanwhile", 1, ""))
	ready(t, ns, "deployment/meanwhile")
	if by := signer(t, ns, podOf(t, ns, "meanwhile"), "8080"); by != "mesh 1" {
		t.Errorf("with a bad Secret, SVIDs are signed by %q", by)
	}
	restartMesh(t) // they start by what they remember
	said(t, "the mesh goes on signing by the certificate that it has", 2)

	second.store(t, secret, second)
	said(t, "signs by an issued certificate", 2)
	apply(t, ns, server("late", 1, ""))
	ready(t, ns, "deployment/late")
	if by := signer(t, ns, podOf(t, ns, "late"), "8080"); by != "mesh 2" {
		t.Errorf("after the renewal SVIDs are signed by %q", by)
	}
	for _, service := range []string{"late", "meanwhile", "web"} {
		if a := get(t, ns, "caller", "http://"+service+"/"); a.Code != 200 {
			t.Errorf("%s: %+v", service, a)
		}
	}
	l.unharmed()
}

// issuedBy has the mesh run by the authority in a Secret while the test does.
func issuedBy(t *testing.T, secret string) {
	t.Helper()
	if out, err := install(t.Context(), "--set", "identity.issuerSecret="+secret); err != nil {
		t.Fatalf("install: %v: %s", err, out)
	}
	t.Cleanup(func() {
		if out, err := install(context.WithoutCancel(t.Context())); err != nil {
			t.Errorf("install: %v: %s", err, out)
		}
		kubectl(t, "-n", "heddle-system", "delete", "secret", secret, "heddle-issued")
	})
}

// restartMesh replaces the control plane's replicas, and waits until those of before are gone.
func restartMesh(t *testing.T) {
	t.Helper()
	const deployment = "deployment/heddle-controlplane"
	old := strings.Fields(kubectl(t, "-n", "heddle-system", "get", "pods", "-l", "app.kubernetes.io/name=heddle-controlplane", "-o", "name"))
	kubectl(t, "-n", "heddle-system", "rollout", "restart", deployment)
	kubectl(t, "-n", "heddle-system", "rollout", "status", deployment, "--timeout=80s")
	kubectl(t, append([]string{"-n", "heddle-system", "wait", "--for=delete", "--timeout=80s"}, old...)...)
}

// said waits until the control plane's replicas have said something so many times.
func said(t *testing.T, what string, times int) {
	t.Helper()
	eventually(t, what, func() (string, bool) {
		// It fails while a replica of before is going.
		out, err := tryKubectl(t, "-n", "heddle-system", "logs", "-l", "app.kubernetes.io/name=heddle-controlplane", "--tail=-1", "--prefix")
		return out, err == nil && strings.Count(out, what) >= times
	})
}

// signer tells who has signed the certificate that a pod shows on a port.
func signer(t *testing.T, ns, pod, port string) string {
	t.Helper()
	return shown(t, ns, pod, port)[0].Issuer.CommonName
}

// authority is a certificate that signs others.
type authority struct {
	cert, root *x509.Certificate
	key        crypto.Signer
}

func newAuthority(t *testing.T, name string, by *authority) *authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	out := &authority{key: key}
	parent, signs := template, crypto.Signer(key)
	if by != nil {
		parent, signs, out.root = by.cert, by.key, by.cert
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), signs)
	if err != nil {
		t.Fatal(err)
	}
	if out.cert, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	return out
}

// store writes a Secret with the authority's certificate and the key of one.
func (a *authority) store(t *testing.T, name string, keyOf *authority) {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(keyOf.key)
	if err != nil {
		t.Fatal(err)
	}
	block := func(kind string, der []byte) string {
		return base64.StdEncoding.EncodeToString(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
	}
	apply(t, "heddle-system", fmt.Sprintf(`
apiVersion: v1
kind: Secret
type: kubernetes.io/tls
metadata: {name: %s}
data: {tls.crt: %s, tls.key: %s, ca.crt: %s}
`, name, block("CERTIFICATE", a.cert.Raw), block("PRIVATE KEY", der), block("CERTIFICATE", a.root.Raw)))
}
