package controlplane

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"io"
	"math/big"
	"net"
	"net/url"
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
// denials.
func TestAccess(t *testing.T) {
	issue := authority(t)
	w := wire(t, tell(t, "access", []byte(accessMesh)), issue("spiffe://mesh.local/ns/default/sa/api"))
	startProgram(t, "http", w.program(8081))
	greet(t, w.program(8082), true)
	greet(t, w.program(8083), false)
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
	} {
		caller := issue(c.id)
		if got := requested(t, w.workload(8081), caller); got != c.allowed {
			t.Errorf("%s: an answer over HTTP: %v", c.id, got)
		}
		// Who is denied out of an allowed namespace passes the handshake, and is stopped at
		// the first byte only: it hears what the program says before.
		hears := c.allowed || c.id == "spiffe://mesh.local/ns/trusted/sa/rogue"
		if got := greeted(t, w.workload(8082), caller, true); got != hears {
			t.Errorf("%s: a greeting where some are allowed: %v", c.id, got)
		}
		if got := greeted(t, w.workload(8083), caller, false); got != c.notDenied {
			t.Errorf("%s: a greeting where some are denied: %v", c.id, got)
		}
	}
}

// greet is a program that says hello: at once, or to whoever has said something. Envoy's
// RBAC filter decides on the caller's first byte and not before.
func greet(t *testing.T, socket string, first bool) {
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
			if !first {
				_, err = conn.Read(make([]byte, 1))
			}
			if err == nil {
				io.WriteString(conn, "hello")
			}
			conn.Close()
		}
	})
	t.Cleanup(func() {
		l.Close()
		done.Wait()
	})
}

// greeted reports whether a caller hears anything.
func greeted(t *testing.T, socket string, caller *certificate, first bool) bool {
	t.Helper()
	conn := caller.dial(t, socket)
	defer conn.Close()
	if !first {
		if _, err := io.WriteString(conn, "."); err != nil {
			return false
		}
	}
	said, _ := io.ReadAll(conn) // to its end, whatever that is
	return len(said) > 0
}

func requested(t *testing.T, socket string, caller *certificate) bool {
	t.Helper()
	conn := caller.dial(t, socket)
	defer conn.Close()
	if _, err := io.WriteString(conn, "GET / HTTP/1.1\r\nHost: api\r\nConnection: close\r\n\r\n"); err != nil {
		return false
	}
	answer, _ := io.ReadAll(conn)
	return len(answer) > 12 && string(answer[9:12]) == "200"
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
