package server

import (
	"context"
	"crypto/x509"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"github.com/heddle-mesh/heddle/identity/attest"
	"github.com/heddle-mesh/heddle/identity/ca"
)

func TestOnlyTheOwnerAndRootManageTokens(t *testing.T) {
	s := &Server{owner: 1000}
	for uid, want := range map[uint32]codes.Code{0: codes.OK, 1000: codes.OK, 1001: codes.PermissionDenied, 65534: codes.PermissionDenied} {
		ctx := peer.NewContext(t.Context(), &peer.Peer{AuthInfo: attest.PeerAuth{Cred: attest.PeerCred{UID: uid}}})
		if err := s.checkOwner(ctx); status.Code(err) != want {
			t.Errorf("uid %d: %v, want %v", uid, err, want)
		}
	}
	if err := s.checkOwner(context.WithoutCancel(t.Context())); status.Code(err) != codes.PermissionDenied {
		t.Errorf("no Unix peer: %v", err)
	}
}

func TestLimiter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLimiter(10, 3)
		count := func(peer string) (allowed int) {
			for range 100 {
				if l.allow(peer) {
					allowed++
				}
			}
			return allowed
		}
		if a, b := count("a"), count("b"); a != 3 || b != 3 {
			t.Errorf("at once: %d and %d, want 3 each", a, b)
		}
		time.Sleep(200 * time.Millisecond)
		if a := count("a"); a != 2 {
			t.Errorf("after 200 ms: %d, want 2", a)
		}
		for i := range 2 * maxBuckets {
			l.allow(fmt.Sprint(i))
		}
		if len(l.buckets) > maxBuckets {
			t.Errorf("%d buckets", len(l.buckets))
		}
		time.Sleep(time.Minute)
		if !l.allow("new") || len(l.buckets) != 1 {
			t.Errorf("the quiet ones are not forgotten: %d buckets", len(l.buckets))
		}
	})
}

// newOwnSVID gives the SVID of a control plane with a new root in dir.
func newOwnSVID(t *testing.T, dir string) (*ca.CA, *OwnSVID) {
	t.Helper()
	config := ca.DefaultConfig()
	config.TrustDomain = "shop.example"
	authority, err := ca.Open(dir+"/ca", config)
	if err != nil {
		t.Fatal(err)
	}
	own, err := NewOwnSVID(authority)
	if err != nil {
		t.Fatal(err)
	}
	return authority, own
}

func TestOwnSVIDIsRenewedAtHalfLife(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		_, own := newOwnSVID(t, dir)
		first, _ := own.GetX509SVID()
		time.Sleep(29 * time.Minute)
		if again, _ := own.GetX509SVID(); again != first {
			t.Error("renewed early")
		}
		time.Sleep(2 * time.Minute)
		next, err := own.GetX509SVID()
		if err != nil || next == first || next.ID.String() != "spiffe://shop.example/ns/heddle-system/sa/controlplane" {
			t.Errorf("after half of its life: %v, %v", next.ID, err)
		}
		if out := fmt.Sprintf("%v %+v %#v", own, own, own); strings.Contains(out, "PrivateKey") || len(out) > 300 {
			t.Errorf("prints %s", out)
		}
	})
}

// TestOwnSVIDOfTheRootThatSigns: who is given the new root only, as a pod that is made then,
// can verify the control plane from the moment that root signs.
func TestOwnSVIDOfTheRootThatSigns(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		authority, own := newOwnSVID(t, dir)
		if err := authority.PrepareRoot(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Hour)
		before, _ := own.GetX509SVID() // fresh, and of the former root
		if err := authority.ActivateRoot(); err != nil {
			t.Fatal(err)
		}
		after, err := own.GetX509SVID()
		if err != nil {
			t.Fatal(err)
		}
		only := x509bundle.FromX509Authorities(authority.TrustDomain(), []*x509.Certificate{authority.Root()})
		if _, _, err := x509svid.Verify(before.Certificates, only); err == nil {
			t.Error("the SVID from before is of the new root")
		}
		if _, _, err := x509svid.Verify(after.Certificates, only); err != nil {
			t.Errorf("the SVID from after: %v", err)
		}
	})
}
