//go:build k8s

package k8s

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// issuer signs certificates of servers.
type issuer struct {
	t    *testing.T
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	file string // with its certificate
	n    *int64 // serial number of the last
}

func newIssuer(t *testing.T) issuer {
	t.Helper()
	i := issuer{t: t, file: filepath.Join(t.TempDir(), "ca.crt"), n: new(int64)}
	*i.n = time.Now().Unix()
	i.key = newKey(t)
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "tests"}, NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &i.key.PublicKey, i.key)
	if err != nil {
		t.Fatal(err)
	}
	if i.cert, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	writePEM(t, i.file, "CERTIFICATE", der)
	return i
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func writePEM(t *testing.T, file, kind string, der []byte) {
	t.Helper()
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
}

func (i issuer) last() string { return fmt.Sprint(*i.n) }

// issue makes the Secret of that name anew, with a certificate for a host.
func (e edge) issue(secret, host string) {
	t, i := e.t, e.issuer
	t.Helper()
	*i.n++
	key := newKey(t)
	template := &x509.Certificate{SerialNumber: big.NewInt(*i.n), DNSNames: []string{host}, NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, i.cert, &key.PublicKey, i.key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	certFile, keyFile := filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key")
	writePEM(t, certFile, "CERTIFICATE", der)
	writePEM(t, keyFile, "PRIVATE KEY", private)
	made := kubectl(t, "-n", e.ns, "create", "secret", "tls", secret, "--cert="+certFile, "--key="+keyFile, "--dry-run=client", "-o", "yaml")
	apply(t, e.ns, made)
}

// ingressFaults: what cannot be served is told, and the rest goes on.
func ingressFaults(t *testing.T, e edge) {
	apply(t, e.ns, `
apiVersion: v1
kind: Secret
metadata: {name: rubbish}
type: kubernetes.io/tls
stringData: {tls.crt: no certificate, tls.key: no key}
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: faulty}
spec:
  ingressClassName: heddle
  tls:
  - {hosts: [rubbish.example], secretName: rubbish}
  - {hosts: [missing.example], secretName: missing}
  rules:
  - {host: rubbish.example, http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: api, port: {name: http}}}}]}}
  - {host: missing.example, http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: api, port: {name: http}}}}]}}
  - host: faulty.example
    http:
      paths:
      - {path: /, pathType: Prefix, backend: {service: {name: api, port: {name: http}}}}
      - {path: /gone, pathType: Prefix, backend: {service: {name: gone, port: {name: http}}}}
      - {path: /port, pathType: Prefix, backend: {service: {name: api, port: {name: grpc}}}}
  - {host: legacy.example, http: {paths: [{path: /steal, pathType: Prefix, backend: {service: {name: api, port: {name: http}}}}]}}
`)
	faults := []string{
		"spec.tls[0].secretName: Secret " + e.ns + "/rubbish has no certificate with its key",
		"spec.tls[1].secretName: Secret " + e.ns + "/missing does not exist",
		"spec.rules[2].http.paths[1].backend.service: Service " + e.ns + "/gone does not exist",
		"spec.rules[2].http.paths[2].backend.service: Service " + e.ns + "/api has no port grpc",
		"spec.rules[3].host: legacy.example belongs to namespace ",
	}
	allIn := func(what string, text func() string) {
		eventually(t, what, func() (string, bool) {
			said := text()
			for _, f := range faults {
				if !strings.Contains(said, f) {
					return said, false
				}
			}
			return said, true
		})
	}
	allIn("heddle check tells of all", func() string {
		out, _ := runHeddle(t, "check")
		return out
	})
	allIn("there are events of all", func() string {
		return kubectl(t, "-n", e.ns, "get", "events", "--field-selector=involvedObject.name=faulty,involvedObject.kind=Ingress,reason=NotServed", "-o", "custom-columns=M:.message")
	})
	for url, want := range map[string]int{
		"http://faulty.example/": 200, "http://faulty.example/gone": 500, "http://faulty.example/port": 500, "http://legacy.example/steal": 200,
		"http://missing.example/": 308, "https://secure.example/": 200, "http://shop.example/": 200,
	} {
		if v := e.visit(url); v.Code != want {
			t.Errorf("%s: %+v, want %d", url, v, want)
		}
	}
	if v := e.visit("http://legacy.example/steal"); v.served(t).Version != "legacy" {
		t.Errorf("another namespace took over a path: %+v", v)
	}
	for _, url := range []string{"https://rubbish.example/", "https://missing.example/"} {
		if v := e.visit(url); v.Error == "" {
			t.Errorf("%s: %+v; want no answer", url, v)
		}
	}
	kubectl(t, "-n", e.ns, "delete", "ingress", "faulty")
	eventually(t, "what no Ingress names is not served", func() (string, bool) {
		v := e.visit("http://faulty.example/")
		return fmt.Sprintf("%+v", v), v.Code == 404
	})
}

// rotateCertificate changes a Secret under load: the new certificate is shown, by the same
// pods, and no request fails.
func rotateCertificate(t *testing.T, e edge) {
	pods := kubectl(t, "-n", "heddle-system", "get", "pods", "-l", "app.kubernetes.io/name=heddle-ingress", "-o", "name")
	l := e.startLoad(t, "https://secure.example/", "-fresh")
	e.issue("tls", "secure.example")
	eventually(t, "the new certificate is shown", func() (string, bool) {
		v := e.visit("https://secure.example/")
		return fmt.Sprintf("%+v", v), v.Code == 200 && v.Serial == e.issuer.last()
	})
	l.unharmed()
	if now := kubectl(t, "-n", "heddle-system", "get", "pods", "-l", "app.kubernetes.io/name=heddle-ingress", "-o", "name"); now != pods {
		t.Errorf("pods were %s and are %s", pods, now)
	}
}

// restartIngress replaces every proxy under load, of connections that stay and of new ones.
func restartIngress(t *testing.T, e edge) {
	loads := []*load{
		e.startLoad(t, "http://shop.example/"), e.startLoad(t, "http://shop.example/api", "-fresh"),
		e.startLoad(t, "https://secure.example/"), e.startLoad(t, "https://secure.example/", "-fresh"),
	}
	kubectl(t, "-n", "heddle-system", "rollout", "restart", "deployment/heddle-ingress")
	ready(t, "heddle-system", "deployment/heddle-ingress")
	eventually(t, "the old proxies are gone", func() (string, bool) {
		pods := kubectl(t, "-n", "heddle-system", "get", "pods", "-l", "app.kubernetes.io/name=heddle-ingress", "-o", "name")
		return pods, strings.Count(pods, "pod/") == 2
	})
	for _, l := range loads {
		l.unharmed()
	}
}

// startLoad sends requests from outside of the cluster until it is finished.
func (e edge) startLoad(t *testing.T, url string, flags ...string) *load {
	t.Helper()
	args := append([]string{app, "load", "-to", e.at, "-ca", e.issuer.file, "-url", url, "-rate", "15"}, flags...)
	return begin(t, c.In(t.Context(), args...))
}
