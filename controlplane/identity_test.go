package controlplane

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
	"time"
)

const calledMesh = `
apiVersion: mesh.heddle.dev/v1alpha1
kind: MeshConfig
metadata: {name: mesh}
spec: {accessLog: true}
---
apiVersion: v1
kind: Service
metadata: {name: api}
spec:
  selector: {app: api}
  ports:
  - {name: http, port: 80, targetPort: 8081}
  - {name: bytes, port: 81, targetPort: 8082}
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
`

// TestCallersWithoutTheRightSVID calls the inbound ports of a real Envoy, one of HTTP and
// one of bytes, with a good SVID and with bad ones. The bad hear a TLS alert that says
// why, the listener's log says so too, and the program hears nothing of them.
func TestCallersWithoutTheRightSVID(t *testing.T) {
	good, bad := papers(t, "web")
	w := wire(t, tell(t, "callers", []byte(calledMesh)), trusting(svid(t, good.authority, "api"), bad))
	programs := map[uint32]*program{8081: startProgram(t, "http", w.program(8081)), 8082: startProgram(t, "bytes", w.program(8082))}
	w.logToFile()
	w.run()
	for port, program := range programs {
		if status, err := knock(t, w.workload(port), good.certificate, good.name); err != nil || status != "200 OK" || len(program.requests(good.name)) != 1 {
			t.Errorf("%s to %d: %q, %v", good.name, port, status, err)
		}
		for _, p := range bad {
			status, err := knock(t, w.workload(port), p.certificate, p.name)
			if err == nil || err.Error() != "remote error: tls: "+p.alert || len(program.requests(p.name)) > 0 {
				t.Errorf("%s to %d: %q, %v; want a TLS alert %q", p.name, port, status, err, p.alert)
			}
		}
	}
	w.awaitLog("the reason of each refusal, once a port, and no verified name", func(l logLines) bool {
		return !slices.ContainsFunc(bad, func(p *paper) bool {
			refused := l.with("tls_failure", p.byServer)
			return len(refused) != len(programs) || refused.has("source_id", "spiffe")
		}) && l.with("tls_failure", "other.local").has("claimed_id", "spiffe://other.local/ns/default/sa/web")
	})
}

// TestNoResumption: a caller that would resume its session shows its SVID anew.
func TestNoResumption(t *testing.T) {
	good, _ := papers(t, "web")
	w := wire(t, tell(t, "callers", []byte(calledMesh)), svid(t, good.authority, "api"))
	startProgram(t, "http", w.program(8081))
	w.run()
	cache := tls.NewLRUClientSessionCache(1)
	for range 3 {
		raw, err := new(net.Dialer).DialContext(t.Context(), "unix", w.workload(8081))
		if err != nil {
			t.Fatal(err)
		}
		conn := tls.Client(raw, &tls.Config{
			InsecureSkipVerify: true, ServerName: "api", ClientSessionCache: cache, Certificates: []tls.Certificate{*good.certificate.pair(t)},
		})
		// A ticket would come with the answer.
		fmt.Fprint(conn, "GET / HTTP/1.1\r\nHost: api\r\nConnection: close\r\n\r\n")
		if _, err := io.ReadAll(conn); err != nil {
			t.Error(err)
		}
		if conn.ConnectionState().DidResume {
			t.Error("a session was resumed")
		}
		conn.Close()
	}
}

// knock sends one request with a name over TLS, and gives the status or why there is none.
func knock(t *testing.T, socket string, c *certificate, name string) (string, error) {
	t.Helper()
	raw, err := new(net.Dialer).DialContext(t.Context(), "unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer raw.Close()
	raw.SetDeadline(time.Now().Add(20 * time.Second))
	// Servers are not checked: a stranger would not mind.
	conn := tls.Client(raw, &tls.Config{InsecureSkipVerify: true, GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
		return c.pair(t), nil // whichever authorities the server asks for
	}})
	// What is read says more than a failed write: the alert may be there already.
	fmt.Fprintf(conn, "GET / HTTP/1.1\r\nHost: api\r\nX-Key: %s\r\nConnection: close\r\n\r\n", name)
	response, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	return response.Status, nil
}

// serverMesh has one service for every server to come, all with the identity of api: one
// port of HTTP, one of bytes.
func serverMesh(servers int) string {
	mesh := "apiVersion: mesh.heddle.dev/v1alpha1\nkind: MeshConfig\nmetadata: {name: mesh}\nspec: {accessLog: true}\n"
	for i := range servers {
		mesh += fmt.Sprintf(`---
apiVersion: v1
kind: Service
metadata: {name: s%[1]d}
spec:
  selector: {app: s%[1]d}
  ports:
  - {name: http, port: 80, targetPort: 81%02[1]d}
  - {name: bytes, port: 81, targetPort: 82%02[1]d}
---
apiVersion: mesh.heddle.dev/v1alpha1
kind: Workload
metadata: {name: s%[1]d-1, labels: {app: s%[1]d}}
spec:
  identity: spiffe://mesh.local/ns/default/sa/api
  addresses: ["10.68.0.%[1]d"]
  capture: transparent
  ports: [{app: 81%02[1]d}, {app: 82%02[1]d}]
  ready: true
`, i)
	}
	return mesh
}

// TestServersWithoutTheRightSVID has a real Envoy call servers with a good SVID and with
// bad ones, one of HTTP and one of bytes each. A caller of the bad gets a 503, or a
// connection that ends; the access log has the flag UF and the reason; and the program
// behind the certificate hears nothing.
func TestServersWithoutTheRightSVID(t *testing.T) {
	good, bad := papers(t, "api")
	all := append([]*paper{good}, bad...)
	w := wire(t, tell(t, "servers", []byte(serverMesh(len(all)))), trusting(svid(t, good.authority, "web"), bad))
	w.callOut()
	programs := map[*paper]*program{}
	for i, p := range all {
		programs[p] = &program{name: "server", attempts: map[string]int{}}
		for _, port := range []int{8100, 8200} {
			serveAs(t, w.workload(uint32(port+i)), p.certificate, programs[p])
		}
	}
	w.logToFile()
	w.run()
	for i, p := range all {
		status, body := w.fetch(fmt.Sprintf("s%d.default:80", i))
		heard := w.hear(fmt.Sprintf("s%d.default:81", i))
		if p == good {
			if status != http.StatusOK || !strings.HasPrefix(heard, "HTTP/1.1 200 ") || len(programs[p].requests("")) != 2 {
				t.Errorf("%s: %d %s, %q", p.name, status, body, heard)
			}
			continue
		}
		if status != http.StatusServiceUnavailable || heard != "" || len(programs[p].requests("")) > 0 {
			t.Errorf("%s: %d %s, %q", p.name, status, body, heard)
		}
	}
	w.awaitLog("the reason of each refusal", func(l logLines) bool {
		for i, p := range bad {
			for _, socket := range []string{w.workload(uint32(8101 + i)), w.workload(uint32(8201 + i))} {
				if !l.with("flags", "UF").with("upstream", socket).has("failure", p.byClient) {
					return false
				}
			}
		}
		return true
	})
}

// fetch asks for / by way of a service's listener.
func (w *wiring) fetch(service string) (status int, body string) {
	w.t.Helper()
	client := &http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", w.service(service))
	}}}
	response, err := client.Get("http://service/")
	if err != nil {
		w.t.Fatal(err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		w.t.Fatal(err)
	}
	return response.StatusCode, string(text)
}

// hear connects by way of a service's listener, speaks HTTP, and gives all that it hears.
func (w *wiring) hear(service string) string {
	w.t.Helper()
	conn, err := net.Dial("unix", w.service(service))
	if err != nil {
		w.t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(20 * time.Second))
	fmt.Fprint(conn, "GET / HTTP/1.1\r\nHost: s\r\nConnection: close\r\n\r\n")
	heard, err := io.ReadAll(conn)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		w.t.Errorf("%s neither answers nor ends the connection", service)
	}
	return string(heard)
}

// serveAs serves a program over TLS, or without where there is no certificate, until the
// test ends.
func serveAs(t *testing.T, socket string, c *certificate, p *program) {
	t.Helper()
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: p, ErrorLog: log.New(io.Discard, "", 0)}
	serve := server.Serve
	if c != nil {
		server.TLSConfig = &tls.Config{ClientAuth: tls.RequireAnyClientCert, Certificates: []tls.Certificate{*c.pair(t)}}
		serve = func(l net.Listener) error { return server.ServeTLS(l, "", "") }
	}
	ended := make(chan error, 1)
	go func() { ended <- serve(l) }()
	t.Cleanup(func() {
		server.Close()
		<-ended
	})
}
