package channel_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"net"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	gospiffe "github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	"github.com/heddle-mesh/heddle/identity/ca"
	"github.com/heddle-mesh/heddle/identity/channel"
	"github.com/heddle-mesh/heddle/identity/spiffeid"
)

// authority opens a new certificate authority, or with a dir of another its root again.
func authority(t *testing.T, dir, trustDomain string, ttl time.Duration) *ca.CA {
	t.Helper()
	config := ca.DefaultConfig()
	config.TrustDomain, config.SVIDTTL = trustDomain, ttl
	c, err := ca.Open(filepath.Join(dir, "ca"), config)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// issue gives an SVID of a service, or of the control plane.
func issue(t *testing.T, from *ca.CA, id spiffeid.ID) *x509svid.SVID {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		t.Fatal(err)
	}
	csr, err := ca.ParseCSR(der)
	if err != nil {
		t.Fatal(err)
	}
	chain, err := from.Sign(csr, id)
	if err != nil {
		t.Fatal(err)
	}
	return &x509svid.SVID{ID: gospiffe.RequireFromString(id.String()), Certificates: chain, PrivateKey: key}
}

func service(t *testing.T, from *ca.CA, name string) spiffeid.ID {
	t.Helper()
	id, err := spiffeid.New(from.TrustDomain().Name(), "default", name)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func controlPlane(t *testing.T, of *ca.CA) spiffeid.ID {
	t.Helper()
	id, err := channel.ControlPlane(of.TrustDomain().Name())
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// seen is the identity that the last admitted call came with.
type seen struct{ atomic.Pointer[spiffeid.ID] }

func (s *seen) note(ctx context.Context) {
	if id, ok := channel.PeerID(ctx); ok {
		s.Store(&id)
	} else {
		s.Store(nil)
	}
}

// serve runs a control plane's port with gRPC's own health service, of which Check is for
// holders of an SVID only and List is open.
func serve(t *testing.T, own *ca.CA) (address string, peer *seen) {
	t.Helper()
	peer = &seen{}
	options := channel.RequireSVID(own, own.TrustDomain(), healthv1.Health_List_FullMethodName)
	options = append(options,
		grpc.Creds(credentials.NewTLS(channel.Server(issue(t, own, controlPlane(t, own)), own, own.TrustDomain()))),
		grpc.ChainUnaryInterceptor(func(ctx context.Context, req any, _ *grpc.UnaryServerInfo, h grpc.UnaryHandler) (any, error) {
			peer.note(ctx)
			return h(ctx, req)
		}),
		grpc.ChainStreamInterceptor(func(srv any, ss grpc.ServerStream, _ *grpc.StreamServerInfo, h grpc.StreamHandler) error {
			peer.note(ss.Context())
			return h(srv, ss)
		}))
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	run(t, l, options...)
	return l.Addr().String(), peer
}

// run serves until the test ends, or until the returned function is called.
func run(t *testing.T, l net.Listener, options ...grpc.ServerOption) (stop func() error) {
	t.Helper()
	s := grpc.NewServer(options...)
	healthv1.RegisterHealthServer(s, health.NewServer())
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	done := make(chan error, 1)
	go func() { done <- channel.Serve(ctx, s, l); close(done) }()
	stop = func() error {
		cancel()
		return <-done
	}
	t.Cleanup(func() {
		if err := stop(); err != nil {
			t.Error(err)
		}
	})
	return stop
}

func client(t *testing.T, target string, creds credentials.TransportCredentials) healthv1.HealthClient {
	t.Helper()
	conn, err := grpc.NewClient(target, grpc.WithTransportCredentials(creds))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return healthv1.NewHealthClient(conn)
}

func want(t *testing.T, what string, err error, code codes.Code, text string) {
	t.Helper()
	if status.Code(err) != code || err != nil && !strings.Contains(err.Error(), text) {
		t.Errorf("%s: %v, want %v with %q", what, err, code, text)
	}
}

// TestWhoMayCall calls a method of each kind with many certificates.
func TestWhoMayCall(t *testing.T) {
	dir := t.TempDir()
	own, brief := authority(t, dir, "shop.example", time.Hour), authority(t, dir, "shop.example", ca.MinSVIDTTL)
	foreign, other := authority(t, t.TempDir(), "shop.example", time.Hour), authority(t, t.TempDir(), "other.example", time.Hour)
	expired, stolen := issue(t, brief, service(t, own, "api")), issue(t, own, service(t, own, "api"))
	stolen.PrivateKey = issue(t, own, service(t, own, "db")).PrivateKey
	address, peer := serve(t, own)
	<-time.After(time.Until(expired.Certificates[0].NotAfter) + time.Millisecond) // which is what is tested
	const mine = "spiffe://shop.example/ns/default/sa/api"
	for _, tc := range []struct {
		name         string
		svid         *x509svid.SVID
		check, open  codes.Code
		text, peerID string
	}{
		{"valid", issue(t, own, service(t, own, "api")), codes.OK, codes.OK, "", mine},
		{"none", nil, codes.Unauthenticated, codes.OK, "needs a client certificate: present an SVID of spiffe://shop.example", ""},
		{"expired", expired, codes.Unavailable, codes.Unavailable, "", ""},
		{"right name of another root", issue(t, foreign, service(t, own, "api")), codes.Unavailable, codes.Unavailable, "", ""},
		{"another trust domain", issue(t, other, service(t, other, "api")), codes.Unavailable, codes.Unavailable, "", ""},
		{"without its key", stolen, codes.Unavailable, codes.Unavailable, "", ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var source x509svid.Source
			if tc.svid != nil {
				source = tc.svid
			}
			config, err := channel.Client(source, own, controlPlane(t, own))
			if err != nil {
				t.Fatal(err)
			}
			c := client(t, address, credentials.NewTLS(config))
			_, err = c.Check(t.Context(), &healthv1.HealthCheckRequest{})
			want(t, "a call", err, tc.check, tc.text)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			stream, err := c.Watch(ctx, &healthv1.HealthCheckRequest{})
			if err == nil {
				_, err = stream.Recv()
			}
			want(t, "a stream", err, tc.check, tc.text)
			_, err = c.List(t.Context(), &healthv1.HealthListRequest{})
			want(t, "an open call", err, tc.open, "")
			if id := peer.Load(); err == nil && (id == nil) != (tc.peerID == "") || id != nil && tc.peerID != "" && id.String() != tc.peerID {
				t.Errorf("the server saw %v, not %q", id, tc.peerID)
			}
		})
	}
}

// TestClientsChooseTheirServer: a client of an agent takes the control plane and nobody
// else, however much of it the client knows.
func TestClientsChooseTheirServer(t *testing.T) {
	own, foreign := authority(t, t.TempDir(), "shop.example", time.Hour), authority(t, t.TempDir(), "shop.example", time.Hour)
	address, _ := serve(t, own)
	root, stranger := own.Bundle().X509Authorities()[0], foreign.Bundle().X509Authorities()[0]
	knows := func(c *tls.Config, err error) *tls.Config {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	old := knows(channel.Client(nil, own, controlPlane(t, own)))
	old.MinVersion, old.MaxVersion = tls.VersionTLS12, tls.VersionTLS12
	for _, tc := range []struct {
		name  string
		creds credentials.TransportCredentials
		code  codes.Code
		text  string
	}{
		{"by bundle", credentials.NewTLS(knows(channel.Client(nil, own, controlPlane(t, own)))), codes.OK, ""},
		{"by fingerprint", credentials.NewTLS(knows(channel.PinnedClient(controlPlane(t, own), channel.FingerprintOf(root)))), codes.OK, ""},
		{"by another bundle", credentials.NewTLS(knows(channel.Client(nil, foreign, controlPlane(t, own)))), codes.Unavailable, "certificate signed by unknown authority"},
		{"by one of two fingerprints", credentials.NewTLS(knows(channel.PinnedClient(controlPlane(t, own), channel.FingerprintOf(stranger), channel.FingerprintOf(root)))), codes.OK, ""},
		{"by another fingerprint", credentials.NewTLS(knows(channel.PinnedClient(controlPlane(t, own), channel.FingerprintOf(stranger)))), codes.Unavailable, "does not have the root by which it was to be recognised"},
		{"by bundle, another identity", credentials.NewTLS(knows(channel.Client(nil, own, service(t, own, "api")))), codes.Unavailable, "unexpected ID"},
		{"by fingerprint, another identity", credentials.NewTLS(knows(channel.PinnedClient(service(t, own, "api"), channel.FingerprintOf(root)))), codes.Unavailable, "unexpected ID"},
		{"TLS 1.2", credentials.NewTLS(old), codes.Unavailable, "protocol version"},
		{"no TLS", insecure.NewCredentials(), codes.Unavailable, ""},
	} {
		_, err := client(t, address, tc.creds).List(t.Context(), &healthv1.HealthListRequest{})
		want(t, tc.name, err, tc.code, tc.text)
	}
}
