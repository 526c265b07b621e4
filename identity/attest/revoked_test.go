package attest

import (
	"errors"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"
)

// TestRevocationsAreForgotten: a revocation outlives a restart and any SVID, but not for
// ever, so that the file stays small.
func TestRevocationsAreForgotten(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "tokens")
	synctest.Test(t, func(t *testing.T) {
		revoke := func(name string) {
			t.Helper()
			if err := mustOpen(t, dir).Revoke(name); err != nil { // as after a restart
				t.Fatal(err)
			}
		}
		first, second := "0123456789abcdef", "fedcba9876543210"
		revoke(first)
		began := time.Now()
		time.Sleep(keepRevoked)
		revoke(second)
		if at, ok := mustOpen(t, dir).revokedAt(first); !ok || !at.Equal(began) {
			t.Errorf("revoked at %v, %v; want %v", at, ok, began)
		}
		if err := mustOpen(t, dir).Revoke(first); !errors.Is(err, ErrNoToken) {
			t.Errorf("revoked twice: %v", err)
		}
		time.Sleep(time.Second)
		revoke("00112233445566ff")
		if _, ok := mustOpen(t, dir).revokedAt(first); ok {
			t.Error("remembered for ever")
		}
		if _, ok := mustOpen(t, dir).revokedAt(second); !ok {
			t.Error("forgotten too early")
		}
	})
	for _, name := range []string{"", "api", "0123456789ABCDEF", "0123456789abcdef00", "../tokens"} {
		if err := mustOpen(t, dir).Revoke(name); !errors.Is(err, ErrNoToken) {
			t.Errorf("revoke %q: %v", name, err)
		}
	}
}
