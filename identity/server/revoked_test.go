package server_test

import (
	"crypto/x509"
	"path/filepath"
	"testing"

	gospiffe "github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	"google.golang.org/grpc/codes"

	identityv1 "github.com/heddle-mesh/heddle/identity/api"
	"github.com/heddle-mesh/heddle/identity/attest"
	"github.com/heddle-mesh/heddle/identity/internal/identitytest"
	"github.com/heddle-mesh/heddle/identity/spiffeid"
)

// workload gets SVIDs as an agent does.
type workload struct {
	t    *testing.T
	cp   *identitytest.ControlPlane
	id   spiffeid.ID
	svid *x509svid.SVID // nil before it has joined
}

// renew gets a new SVID by the present one, or by a token where one is given.
func (w *workload) renew(token attest.JoinToken) error {
	w.t.Helper()
	key := newKey(w.t)
	present := w.svid
	if token != "" {
		present = nil
	}
	response, err := connect(w.t, w.cp, present, w.cp.CA).SignSVID(w.t.Context(), &identityv1.SignSVIDRequest{Csr: csrFor(w.t, key, w.id), JoinToken: token.Reveal()})
	if err != nil {
		return err
	}
	var chain []*x509.Certificate
	for _, der := range response.GetChain() {
		cert, err := x509.ParseCertificate(der)
		if err != nil {
			w.t.Fatal(err)
		}
		chain = append(chain, cert)
	}
	w.svid = &x509svid.SVID{ID: gospiffe.RequireFromString(w.id.String()), Certificates: chain, PrivateKey: key}
	return nil
}

// TestRevokedTokenEndsRenewal revokes the token of one of two workloads of a service. The
// one is not renewed, however often it was before and whatever was restarted; the other is;
// and with a new token the one is again.
func TestRevokedTokenEndsRenewal(t *testing.T) {
	dir := t.TempDir()
	cp := identitytest.New(t, filepath.Join(dir, "cp"))
	cp.Start()
	api := identitytest.ID(t, "api")
	lost, kept := &workload{t: t, cp: cp, id: api}, &workload{t: t, cp: cp, id: api}
	token, once := cp.Token(api), cp.Token(api, func(s *attest.TokenSpec) { s.SingleUse = true })
	for w, token := range map[*workload]attest.JoinToken{lost: token, kept: once} {
		want := token.Name()
		for range 3 {
			wantStatus(t, w.renew(token), codes.OK)
			if got := attest.TokenOf(w.svid.Certificates[0]); got != want {
				t.Errorf("the SVID goes back to token %q, not %q", got, want)
			}
			token = "" // then by SVID
		}
	}
	if err := cp.Tokens.Revoke(token.Name()); err != nil {
		t.Fatal(err)
	}
	refused := func() {
		t.Helper()
		wantStatus(t, lost.renew(""), codes.PermissionDenied, api.String(), "join token "+token.Name()+", which was revoked at", "heddle token create")
		wantStatus(t, lost.renew(token), codes.Unauthenticated, "revoked")
		wantStatus(t, kept.renew(""), codes.OK)
	}
	refused()
	cp.Stop()
	cp = identitytest.New(t, filepath.Join(dir, "cp"))
	cp.Start()
	lost.cp, kept.cp = cp, cp
	refused()

	wantStatus(t, lost.renew(cp.Token(api)), codes.OK)
	wantStatus(t, lost.renew(""), codes.OK)
	// A token that is used up is no longer stored, and its SVIDs can be stopped all the same.
	if err := cp.Tokens.Revoke(once.Name()); err != nil {
		t.Fatal(err)
	}
	wantStatus(t, kept.renew(""), codes.PermissionDenied, once.Name())
}
