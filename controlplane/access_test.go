package controlplane

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"
)

const accessMesh = `
apiVersion: v1
kind: Service
metadata: {name: api}
spec:
  selector: {app: api}
  ports:
  - {name: http, port: 80, targetPort: 8081}
  - {name: greeter, port: 81, targetPort: 8082}
---
apiVersion: mesh.heddle.dev/v1alpha1
kind: Workload
metadata: {name: api-1, labels: {app: api}}
spec:
  identity: spiffe://mesh.local/ns/default/sa/api
  addresses: ["10.68.0.1"]
  capture: transparent
  ports: [{app: 8081}, {app: 8082}]
  ready: true
---
apiVersion: mesh.heddle.dev/v1alpha1
kind: AuthorizationPolicy
metadata: {name: allow}
spec:
  targetRefs: [{kind: Service, name: api}]
  action: Allow
  rules: [{from: [{serviceAccount: web}, {namespace: trusted}]}]
---
apiVersion: mesh.heddle.dev/v1alpha1
kind: AuthorizationPolicy
metadata: {name: deny}
spec:
  action: Deny
  rules: [{from: [{namespace: trusted, serviceAccount: rogue}]}]
---
apiVersion: v1
kind: Service
metadata: {name: feed}
spec:
  selector: {app: feed}
  ports: [{port: 81, targetPort: 8083}]
---
apiVersion: mesh.heddle.dev/v1alpha1
kind: Workload
metadata: {name: feed-1, labels: {app: feed}}
spec:
  identity: spiffe://mesh.local/ns/default/sa/feed
  addresses: ["10.68.0.2"]
  capture: transparent
  ports: [{app: 8083}]
  ready: true
`

// TestAccess lets callers with different identities at a real Envoy's inbound ports and
// looks who is let in, to a program that speaks HTTP and to others. Port 8083 has only
// denials, and more of them than one expression may name.
func TestAccess(t *testing.T) {
	issue := authority(t)
	w := wire(t, tell(t, "access", []byte(accessMesh+denials("feed", 60))), issue("spiffe://mesh.local/ns/default/sa/api"))
	startProgram(t, "http", w.program(8081))
	greet(t, w.program(8082))
	greet(t, w.program(8083))
	w.run()
	for _, c := range []struct {
		id                 string
		allowed, notDenied bool
	}{
		{"spiffe://mesh.local/ns/default/sa/web", true, true},
		{"spiffe://mesh.local/ns/default/sa/job", false, true},
		{"spiffe://mesh.local/ns/trusted/sa/any", true, true},
		{"spiffe://mesh.local/ns/trusted/sa/rogue", false, false},
		{"spiffe://other.domain/ns/default/sa/web", false, false},
		{"spiffe://mesh.local/ns/default/sa/contractor-of-the-season-0", false, false},
		{"spiffe://mesh.local/ns/default/sa/contractor-of-the-season-59", false, false},
		{"spiffe://mesh.local/ns/default/sa/contractor-of-the-season-5x", false, true},
		{"spiffe://mesh.local/ns/default/sa/contractor-of-the-season", false, true},
	} {
		caller := issue(c.id)
		if got := requested(t, w.workload(8081), caller); got != c.allowed {
			t.Errorf("%s: an answer over HTTP: %v", c.id, got)
		}
		if got := greeted(t, w.workload(8082), caller); got != c.allowed {
			t.Errorf("%s: a greeting where some are allowed: %v", c.id, got)
		}
		if got := greeted(t, w.workload(8083), caller); got != c.notDenied {
			t.Errorf("%s: a greeting where some are denied: %v", c.id, got)
		}
	}
}

// denials is a policy that denies a service to n callers.
func denials(service string, n int) string {
	var from []string
	for i := range n {
		from = append(from, fmt.Sprintf("{serviceAccount: contractor-of-the-season-%d}", i))
	}
	return fmt.Sprintf(`---
apiVersion: mesh.heddle.dev/v1alpha1
kind: AuthorizationPolicy
metadata: {name: season}
spec:
  targetRefs: [{kind: Service, name: %s}]
  action: Deny
  rules: [{from: [%s]}]
`, service, strings.Join(from, ", "))
}

// greet is a program that says hello at once.
func greet(t *testing.T, socket string) {
	t.Helper()
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	var done sync.WaitGroup
	done.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			io.WriteString(conn, "hello")
			conn.Close()
		}
	})
	t.Cleanup(func() {
		l.Close()
		done.Wait()
	})
}

// greeted reports whether a caller hears anything.
func greeted(t *testing.T, socket string, caller *certificate) bool {
	t.Helper()
	conn := caller.dial(t, socket)
	defer conn.Close()
	n, _ := conn.Read(make([]byte, 1)) // the refusal comes as an error
	return n > 0
}

func requested(t *testing.T, socket string, caller *certificate) bool {
	t.Helper()
	conn := caller.dial(t, socket)
	defer conn.Close()
	if _, err := io.WriteString(conn, "GET / HTTP/1.1\r\nHost: api\r\nConnection: close\r\n\r\n"); err != nil {
		return false
	}
	answer := make([]byte, len("HTTP/1.1 200"))
	_, err := io.ReadFull(conn, answer)
	return err == nil && string(answer[9:]) == "200"
}

// certificate is an identity with its key, in PEM.
type certificate struct{ chain, key, roots []byte }

// dial connects; that the other end refuses the certificate is only seen later, by TLS 1.3.
func (c *certificate) dial(t *testing.T, socket string) net.Conn {
	t.Helper()
	pair, err := tls.X509KeyPair(c.chain, c.key)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := new(net.Dialer).DialContext(t.Context(), "unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	raw.SetDeadline(time.Now().Add(20 * time.Second))
	return tls.Client(raw, &tls.Config{
		Certificates: []tls.Certificate{pair}, InsecureSkipVerify: true, // the server is not what is tested
	})
}

// authority gives a function that issues certificates for SPIFFE IDs.
func authority(t *testing.T) func(id string) *certificate {
	t.Helper()
	root := &x509.Certificate{
		SerialNumber: big.NewInt(1), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	rootKey := newKey(t)
	rootDER, err := x509.CreateCertificate(rand.Reader, root, root, rootKey.Public(), rootKey)
	if err != nil {
		t.Fatal(err)
	}
	return func(id string) *certificate {
		uri, err := url.Parse(id)
		if err != nil {
			t.Fatal(err)
		}
		key := newKey(t)
		leaf := &x509.Certificate{
			SerialNumber: big.NewInt(2), URIs: []*url.URL{uri}, KeyUsage: x509.KeyUsageDigitalSignature,
			ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
			NotBefore:   root.NotBefore, NotAfter: root.NotAfter,
		}
		der, err := x509.CreateCertificate(rand.Reader, leaf, root, key.Public(), rootKey)
		if err != nil {
			t.Fatal(err)
		}
		keyDER, err := x509.MarshalPKCS8PrivateKey(key)
		if err != nil {
			t.Fatal(err)
		}
		return &certificate{
			chain: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
			key:   pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER}),
			roots: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: rootDER}),
		}
	}
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}
