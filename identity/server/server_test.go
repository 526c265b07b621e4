package server_test

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"net"
	"net/url"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	gospiffe "github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	identityv1 "github.com/heddle-mesh/heddle/identity/api"
	"github.com/heddle-mesh/heddle/identity/attest"
	"github.com/heddle-mesh/heddle/identity/ca"
	"github.com/heddle-mesh/heddle/identity/channel"
	"github.com/heddle-mesh/heddle/identity/internal/identitytest"
	"github.com/heddle-mesh/heddle/identity/spiffeid"
)

func newKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func csrFor(t *testing.T, key crypto.Signer, id spiffeid.ID) []byte {
	t.Helper()
	uri, err := url.Parse(id.String())
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{URIs: []*url.URL{uri}}, key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

// svidFrom has authority issue an SVID.
func svidFrom(t *testing.T, authority *ca.CA, id spiffeid.ID) *x509svid.SVID {
	t.Helper()
	key := newKey(t)
	csr, err := ca.ParseCSR(csrFor(t, key, id))
	if err != nil {
		t.Fatal(err)
	}
	chain, err := authority.Sign(csr, id)
	if err != nil {
		t.Fatal(err)
	}
	return &x509svid.SVID{ID: gospiffe.RequireFromString(id.String()), Certificates: chain, PrivateKey: key}
}

// connect makes a client of the TCP port that presents svid, or nothing when it is nil.
func connect(t *testing.T, cp *identitytest.ControlPlane, svid *x509svid.SVID, bundle x509bundle.Source) identityv1.IdentityClient {
	t.Helper()
	server, err := channel.ControlPlane(identitytest.TrustDomain)
	if err != nil {
		t.Fatal(err)
	}
	var source x509svid.Source
	if svid != nil {
		source = svid
	}
	config, err := channel.Client(source, bundle, server)
	if err != nil {
		t.Fatal(err)
	}
	return dial(t, cp, "tcp", "controlplane", credentials.NewTLS(config))
}

func dial(t *testing.T, cp *identitytest.ControlPlane, network, address string, creds credentials.TransportCredentials) identityv1.IdentityClient {
	t.Helper()
	conn, err := grpc.NewClient("passthrough:///"+address, grpc.WithTransportCredentials(creds),
		grpc.WithContextDialer(func(ctx context.Context, address string) (net.Conn, error) {
			return cp.DialContext(ctx, network, address)
		}))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return identityv1.NewIdentityClient(conn)
}

func wantStatus(t *testing.T, err error, code codes.Code, text ...string) {
	t.Helper()
	if status.Code(err) != code {
		t.Errorf("error %v, want %v", err, code)
		return
	}
	for _, part := range text {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("error %q lacks %q", err, part)
		}
	}
}

func TestSignSVIDByToken(t *testing.T) {
	cp := identitytest.New(t, t.TempDir())
	cp.Start()
	api, db := identitytest.ID(t, "api"), identitytest.ID(t, "db")
	token := cp.Token(api).Reveal()
	good := csrFor(t, newKey(t), api)
	client := connect(t, cp, nil, cp.CA)
	for _, tc := range []struct {
		name string
		req  *identityv1.SignSVIDRequest
		code codes.Code
		text []string
	}{
		{"good", &identityv1.SignSVIDRequest{Csr: good, JoinToken: token, Namespace: "default", Service: "api"}, codes.OK, nil},
		{"no identity named", &identityv1.SignSVIDRequest{Csr: good, JoinToken: token}, codes.OK, nil},
		{"a request for another's identity", &identityv1.SignSVIDRequest{Csr: csrFor(t, newKey(t), db), JoinToken: token}, codes.PermissionDenied, []string{api.String(), db.String()}},
		{"a token for another service", &identityv1.SignSVIDRequest{Csr: good, JoinToken: token, Namespace: "default", Service: "db"}, codes.PermissionDenied, []string{api.String(), db.String()}},
		{"no proof", &identityv1.SignSVIDRequest{Csr: good}, codes.Unauthenticated, []string{"heddle token create"}},
		{"garbage for a token", &identityv1.SignSVIDRequest{Csr: good, JoinToken: "x"}, codes.Unauthenticated, []string{"not a join token"}},
		{"garbage", &identityv1.SignSVIDRequest{Csr: []byte("x"), JoinToken: token}, codes.InvalidArgument, []string{"certificate signing request"}},
		{"huge", &identityv1.SignSVIDRequest{Csr: make([]byte, 1<<20), JoinToken: token}, codes.InvalidArgument, []string{"1048576 bytes"}},
		{"half a name", &identityv1.SignSVIDRequest{Csr: good, JoinToken: token, Service: "api"}, codes.InvalidArgument, []string{"namespace"}},
		{"a bad name", &identityv1.SignSVIDRequest{Csr: good, JoinToken: token, Namespace: "..", Service: "a b"}, codes.InvalidArgument, []string{"namespace"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			response, err := client.SignSVID(t.Context(), tc.req)
			wantStatus(t, err, tc.code, tc.text...)
			if err == nil && (len(response.GetChain()) != 2 || len(response.GetBundle()) != 1) {
				t.Errorf("%d certificates, %d roots", len(response.GetChain()), len(response.GetBundle()))
			}
			if err != nil && strings.Contains(err.Error(), strings.Split(token, ".")[2]) {
				t.Error("the error holds the token's secret")
			}
		})
	}
}

func TestSVIDRenewsItsOwnIdentityOnly(t *testing.T) {
	cp := identitytest.New(t, t.TempDir())
	cp.Start()
	api := identitytest.ID(t, "api")
	client := connect(t, cp, svidFrom(t, cp.CA, api), cp.CA)
	_, err := client.SignSVID(t.Context(), &identityv1.SignSVIDRequest{Csr: csrFor(t, newKey(t), api)})
	wantStatus(t, err, codes.OK)
	_, err = client.SignSVID(t.Context(), &identityv1.SignSVIDRequest{Csr: csrFor(t, newKey(t), identitytest.ID(t, "db"))})
	wantStatus(t, err, codes.PermissionDenied, "sa/db", "sa/api")
	_, err = client.SignSVID(t.Context(), &identityv1.SignSVIDRequest{Csr: csrFor(t, newKey(t), api), Namespace: "default", Service: "db"})
	wantStatus(t, err, codes.PermissionDenied, "own SVID only")
}

func TestWithoutSVIDOnlySigning(t *testing.T) {
	cp := identitytest.New(t, t.TempDir())
	cp.Start()
	client := connect(t, cp, nil, cp.CA)
	_, err := client.ListTokens(t.Context(), &identityv1.ListTokensRequest{})
	wantStatus(t, err, codes.Unauthenticated, "client certificate", "SVID")
	stream, err := client.WatchBundle(t.Context(), &identityv1.WatchBundleRequest{})
	if err == nil {
		_, err = stream.Recv()
	}
	wantStatus(t, err, codes.Unauthenticated, "client certificate", "SVID")
}

// TestBadClientCertificates presents certificates that fail in the handshake.
func TestBadClientCertificates(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		cp := identitytest.New(t, filepath.Join(dir, "cp"))
		stranger := identitytest.New(t, filepath.Join(dir, "stranger"))
		foreign := identitytest.New(t, filepath.Join(dir, "foreign"), func(c *ca.Config) { c.TrustDomain = "other.example" })
		other, err := spiffeid.New("other.example", "default", "api")
		if err != nil {
			t.Fatal(err)
		}
		api := identitytest.ID(t, "api")
		svids := map[string]*x509svid.SVID{
			"expired":               svidFrom(t, cp.CA, api),
			"same name, another CA": svidFrom(t, stranger.CA, api),
			"another trust domain":  svidFrom(t, foreign.CA, other),
		}
		stolen := svidFrom(t, cp.CA, api)
		svids["without its key"] = &x509svid.SVID{ID: stolen.ID, Certificates: stolen.Certificates, PrivateKey: newKey(t)}
		time.Sleep(time.Hour + time.Second)
		cp.Start()
		for name, svid := range svids {
			_, err := connect(t, cp, svid, cp.CA).SignSVID(t.Context(), &identityv1.SignSVIDRequest{Csr: csrFor(t, newKey(t), api)})
			if status.Code(err) != codes.Unavailable {
				t.Errorf("%s: %v, want a failed connection", name, err)
			}
		}
	})
}

// TestConnectionOutlivesItsSVID checks that calls on an old connection are refused.
func TestConnectionOutlivesItsSVID(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		cp := identitytest.New(t, dir)
		cp.Start()
		api := identitytest.ID(t, "api")
		client := connect(t, cp, svidFrom(t, cp.CA, api), cp.CA)
		stream, err := client.WatchBundle(t.Context(), &identityv1.WatchBundleRequest{})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := stream.Recv(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Hour)
		_, err = client.SignSVID(t.Context(), &identityv1.SignSVIDRequest{Csr: csrFor(t, newKey(t), api)})
		if status.Code(err) != codes.Unavailable && status.Code(err) != codes.Unauthenticated {
			t.Errorf("a call with an expired SVID: %v", err)
		}
		if err := cp.CA.PrepareRoot(); err != nil { // the stream is as it was
			t.Fatal(err)
		}
		if update, err := stream.Recv(); err != nil || len(update.GetBundle()) != 2 {
			t.Errorf("the open stream: %v, %v", update, err)
		}
	})
}

func TestClientRefusesAnotherServer(t *testing.T) {
	dir := t.TempDir()
	cp := identitytest.New(t, filepath.Join(dir, "cp"))
	cp.Start()
	stranger := identitytest.New(t, filepath.Join(dir, "stranger"))
	req := &identityv1.SignSVIDRequest{}
	_, err := connect(t, cp, nil, stranger.CA).SignSVID(t.Context(), req)
	wantStatus(t, err, codes.Unavailable, "certificate")

	api := identitytest.ID(t, "api")
	config, err := channel.PinnedClient(api, channel.FingerprintOf(cp.CA.Bundle().X509Authorities()[0]))
	if err != nil {
		t.Fatal(err)
	}
	_, err = dial(t, cp, "tcp", "x", credentials.NewTLS(config)).SignSVID(t.Context(), req)
	wantStatus(t, err, codes.Unavailable, "unexpected ID")
}

func TestTokensThroughTheUnixSocket(t *testing.T) {
	dir := t.TempDir()
	cp := identitytest.New(t, filepath.Join(dir, "cp"))
	cp.Start()
	cp.StartUnix(filepath.Join(dir, "s"))
	client := dial(t, cp, "unix", filepath.Join(dir, "s"), attest.UnixCredentials())
	created, err := client.CreateToken(t.Context(), &identityv1.CreateTokenRequest{Namespace: "default", Service: "api", Ttl: durationpb.New(time.Hour)})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := attest.ParseJoinToken(created.GetJoinToken()); err != nil {
		t.Error(err)
	}
	list, err := client.ListTokens(t.Context(), &identityv1.ListTokensRequest{})
	if err != nil || len(list.GetTokens()) != 1 || list.GetTokens()[0].GetName() != created.GetToken().GetName() {
		t.Errorf("list %v, %v", list, err)
	}
	for range 2 {
		_, err = client.RevokeToken(t.Context(), &identityv1.RevokeTokenRequest{Name: created.GetToken().GetName()})
	}
	wantStatus(t, err, codes.NotFound)
	_, err = client.CreateToken(t.Context(), &identityv1.CreateTokenRequest{Namespace: "default", Service: "api"})
	wantStatus(t, err, codes.InvalidArgument, "ttl")
	_, err = client.CreateToken(t.Context(), &identityv1.CreateTokenRequest{Service: "api", Ttl: durationpb.New(time.Hour)})
	wantStatus(t, err, codes.InvalidArgument, "namespace")

	api := svidFrom(t, cp.CA, identitytest.ID(t, "api"))
	_, err = connect(t, cp, api, cp.CA).ListTokens(t.Context(), &identityv1.ListTokensRequest{})
	wantStatus(t, err, codes.PermissionDenied, "Unix socket")
}
