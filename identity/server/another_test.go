package server_test

import (
	"crypto/rand"
	"crypto/x509"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	identityv1 "github.com/heddle-mesh/heddle/identity/api"
	"github.com/heddle-mesh/heddle/identity/attest"
	"github.com/heddle-mesh/heddle/identity/internal/identitytest"
)

// TestAnothersIdentity asks through the control plane's Unix socket, with a token of api,
// for what is not api's. What comes back says who asked for whom; whatever the request
// says, a certificate is of api only.
func TestAnothersIdentity(t *testing.T) {
	dir, err := os.MkdirTemp("", "id") // short, for the limit on socket paths
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	cp := identitytest.New(t, filepath.Join(dir, "cp"))
	cp.StartUnix(filepath.Join(dir, "s"))
	client := dial(t, cp, "unix", filepath.Join(dir, "s"), attest.UnixCredentials())
	const api = "spiffe://shop.example/ns/default/sa/api"
	token := cp.Token(identitytest.ID(t, "api"))
	asksFor := func(uri string) string {
		return fmt.Sprintf("certificate signing request for another identity: it asks for %q, but the requester is %s", uri, api)
	}
	for _, tc := range []struct {
		name    string
		uris    []string
		service string
		refusal string // "" = none
	}{
		{"its own", []string{api}, "api", ""},
		{"another service", []string{"spiffe://shop.example/ns/default/sa/db"}, "", asksFor("spiffe://shop.example/ns/default/sa/db")},
		{"another namespace", []string{"spiffe://shop.example/ns/bank/sa/api"}, "api", asksFor("spiffe://shop.example/ns/bank/sa/api")},
		{"another trust domain", []string{"spiffe://other.example/ns/default/sa/api"}, "", asksFor("spiffe://other.example/ns/default/sa/api")},
		{"the control plane", []string{"spiffe://shop.example/ns/heddle-system/sa/controlplane"}, "", asksFor("spiffe://shop.example/ns/heddle-system/sa/controlplane")},
		{"its own and another", []string{api, "spiffe://shop.example/ns/default/sa/db"}, "", asksFor("spiffe://shop.example/ns/default/sa/db")},
		{"no SPIFFE ID", []string{"https://shop.example/"}, "", asksFor("https://shop.example/")},
		{"its own, but says it is another", []string{api}, "db",
			"not allowed: join token " + token.Name() + " is for " + api + ", not for spiffe://shop.example/ns/default/sa/db"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			req := &identityv1.SignSVIDRequest{Csr: csrWith(t, tc.uris...), JoinToken: token.Reveal()}
			if tc.service != "" {
				req.Namespace, req.Service = "default", tc.service
			}
			response, err := client.SignSVID(t.Context(), req)
			if tc.refusal != "" {
				if got := status.Convert(err); got.Code() != codes.PermissionDenied || got.Message() != tc.refusal {
					t.Errorf("%v: %s\nwant: %s", got.Code(), got.Message(), tc.refusal)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			leaf, err := x509.ParseCertificate(response.GetChain()[0])
			if err != nil || len(leaf.URIs) != 1 || leaf.URIs[0].String() != api {
				t.Errorf("a certificate of %v, %v", leaf.URIs, err)
			}
		})
	}
}

// TestNamesBesideTheIdentity: what a request has beside its SPIFFE ID is left out.
func TestNamesBesideTheIdentity(t *testing.T) {
	cp := identitytest.New(t, t.TempDir())
	cp.Start()
	api := identitytest.ID(t, "api")
	template := &x509.CertificateRequest{DNSNames: []string{"db.default.svc.cluster.local"}, EmailAddresses: []string{"root@shop.example"}}
	template.Subject.CommonName = "db"
	der, err := x509.CreateCertificateRequest(rand.Reader, template, newKey(t))
	if err != nil {
		t.Fatal(err)
	}
	response, err := connect(t, cp, nil, cp.CA).SignSVID(t.Context(), &identityv1.SignSVIDRequest{Csr: der, JoinToken: cp.Token(api).Reveal()})
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(response.GetChain()[0])
	if err != nil || len(leaf.DNSNames)+len(leaf.EmailAddresses) > 0 || leaf.Subject.CommonName != "" || len(leaf.URIs) != 1 {
		t.Errorf("%v %v %q %v, %v", leaf.DNSNames, leaf.EmailAddresses, leaf.Subject, leaf.URIs, err)
	}
}

func csrWith(t *testing.T, uris ...string) []byte {
	t.Helper()
	template := &x509.CertificateRequest{}
	for _, text := range uris {
		uri, err := url.Parse(text)
		if err != nil {
			t.Fatal(err)
		}
		template.URIs = append(template.URIs, uri)
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, template, newKey(t))
	if err != nil {
		t.Fatal(err)
	}
	return der
}
