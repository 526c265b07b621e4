package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/heddle-mesh/heddle/identity/agent"
	"github.com/heddle-mesh/heddle/identity/ca"
	"github.com/heddle-mesh/heddle/identity/spiffeid"
	"github.com/heddle-mesh/heddle/proxy/sidecar"
	"github.com/heddle-mesh/heddle/proxy/supervise"
)

// TestSVIDChain shows the chain that a real authority has issued, as a sidecar tells it.
func TestSVIDChain(t *testing.T) {
	p := newPlane(t)
	chain := issue(t, filepath.Join(p.dir, "issuer"), "api")
	leaf, issuer := chain[0], chain[1]
	id, err := spiffeid.Parse(leaf.URIs[0].String())
	fatal(t, err)
	socket := tellStatus(t, p.dir, sidecar.Status{
		Workload: "api-1", Namespace: "default", Ready: true, Envoy: supervise.Status{Name: "envoy", State: supervise.Ready},
		Identity: sidecar.NewIdentity(agent.Status{ID: id, Expires: leaf.NotAfter, RenewAt: leaf.NotAfter, DiskError: "disk full", Chain: chain}),
	})

	var shown svidItem
	fatal(t, json.Unmarshal([]byte(p.ok("", "svid", "api-1", "--status", socket, "-o", "json")), &shown))
	want := []sidecar.Certificate{
		{Subject: id.String(), Issuer: "CN=mesh.local intermediate,O=Heddle", Serial: fmt.Sprintf("%x", leaf.SerialNumber.Bytes()), NotBefore: leaf.NotBefore, NotAfter: leaf.NotAfter},
		{Subject: "CN=mesh.local intermediate,O=Heddle", Issuer: "CN=mesh.local root,O=Heddle", Serial: fmt.Sprintf("%x", issuer.SerialNumber.Bytes()), NotBefore: issuer.NotBefore, NotAfter: issuer.NotAfter},
	}
	if diff := cmp.Diff(want, shown.Chain); diff != "" || shown.DiskError != "disk full" {
		t.Errorf("-o json, disk error %q (-want +got):\n%s", shown.DiskError, diff)
	}

	text := p.ok("", "svid", "api-1", "--status", socket)
	_, certificates, _ := strings.Cut(text, "Disk error:")
	local := func(at time.Time) string { return at.Local().Format(time.DateTime) }
	p.same("text", strings.Join(strings.Fields(certificates), " "), strings.Join([]string{
		"disk full",
		"Certificate 1:", want[0].Subject, "Issuer:", want[0].Issuer, "Serial:", want[0].Serial, "Valid:", local(leaf.NotBefore), "to", local(leaf.NotAfter),
		"Certificate 2:", want[1].Subject, "Issuer:", want[1].Issuer, "Serial:", want[1].Serial, "Valid:", local(issuer.NotBefore), "to", local(issuer.NotAfter),
	}, " "))
}

// issue has a new authority sign the SVID of a service.
func issue(t *testing.T, dir, service string) []*x509.Certificate {
	t.Helper()
	config := ca.DefaultConfig()
	config.TrustDomain = "mesh.local"
	authority, err := ca.Open(dir, config)
	fatal(t, err)
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	fatal(t, err)
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	fatal(t, err)
	csr, err := ca.ParseCSR(der)
	fatal(t, err)
	id, err := spiffeid.New("mesh.local", "default", service)
	fatal(t, err)
	chain, err := authority.Sign(csr, id)
	fatal(t, err)
	return chain
}

// tellStatus answers on a status socket, as a sidecar does.
func tellStatus(t *testing.T, dir string, status sidecar.Status) (socket string) {
	t.Helper()
	socket = filepath.Join(dir, "status.sock")
	l, err := net.Listen("unix", socket)
	fatal(t, err)
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _ = json.NewEncoder(w).Encode(status) })}
	served := make(chan error, 1)
	go func() { served <- server.Serve(l) }()
	t.Cleanup(func() { server.Close(); <-served })
	return socket
}
