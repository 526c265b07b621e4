package agent

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/heddle-mesh/heddle/identity/attest"
	"github.com/heddle-mesh/heddle/identity/channel"
	"github.com/heddle-mesh/heddle/identity/internal/identitytest"
)

// takes makes the control plane take one service account token, which can be changed.
func takes(cp *identitytest.ControlPlane, token string, t *testing.T) *atomic.Pointer[string] {
	id := identitytest.ID(t, "api")
	current := new(atomic.Pointer[string])
	current.Store(&token)
	cp.Attest = func(_ context.Context, e attest.Evidence) (attest.Attested, error) {
		switch e.ServiceAccountToken.Reveal() {
		case "":
			return attest.Attested{}, attest.ErrNotMine
		case *current.Load():
			return attest.Attested{ID: id}, nil
		}
		return attest.Attested{}, fmt.Errorf("%w: token is not valid", attest.ErrUnauthenticated)
	}
	return current
}

func podConfig(t *testing.T, cp *identitytest.ControlPlane, dir, token string) Config {
	t.Helper()
	config := testConfig(t, cp, filepath.Join(dir, "agent"))
	config.Token, config.TokenFile = "", filepath.Join(dir, "token")
	config.Roots = []attest.Fingerprint{{1, 2, 3}, channel.FingerprintOf(cp.CA.Bundle().X509Authorities()[0])}
	writeToken(t, config.TokenFile, token)
	return config
}

func writeToken(t *testing.T, path, token string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(token+"\n"), 0o640); err != nil { // as the kubelet does for a group
		t.Fatal(err)
	}
}

// TestPod: the first SVID by the token in a file, renewals by SVID, and the token again,
// the one that is in the file by then, when the SVID has expired meanwhile.
func TestPod(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		cp := identitytest.New(t, filepath.Join(dir, "cp"))
		cp.Start()
		token, second := takes(cp, "first", t), "second"
		config := podConfig(t, cp, dir, "first")
		a, _ := start(t, config)
		synctest.Wait()
		mustSVID(t, a)

		token.Store(&second)
		time.Sleep(6 * time.Hour)
		mustSVID(t, a)
		if s := a.Status(); s.LastError != "" {
			t.Errorf("renewal needed the token: %+v", s)
		}
		cp.Stop()
		time.Sleep(2 * time.Hour)
		if _, err := a.GetX509SVID(); err == nil {
			t.Fatal("an SVID of an hour lasts two")
		}
		writeToken(t, config.TokenFile, "second")
		cp.Start()
		time.Sleep(lastPodRetry * 2)
		mustSVID(t, a)
	})
}

// TestPodOutlivesItsRoot: the mesh's root is rotated while a pod runs, which was given the
// old one, and then its SVID expires.
func TestPodOutlivesItsRoot(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		cp := identitytest.New(t, filepath.Join(dir, "cp"))
		cp.Start()
		takes(cp, "first", t)
		a, _ := start(t, podConfig(t, cp, dir, "first"))
		synctest.Wait()
		mustSVID(t, a)
		if err := cp.CA.PrepareRoot(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Hour)
		mustSVID(t, a)
		cp.Stop()
		if err := cp.CA.ActivateRoot(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Hour)
		if _, err := a.GetX509SVID(); err == nil {
			t.Fatal("an SVID of an hour lasts two")
		}
		cp.Start()
		time.Sleep(lastPodRetry * 2)
		mustSVID(t, a)
	})
}

// TestPodOfFormerRoot: a pod that has nothing but the root of the day it was made, as after a
// restart of its node, joins at every moment of rotations of the root, and not for ever.
func TestPodOfFormerRoot(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		cp := identitytest.New(t, filepath.Join(dir, "cp"))
		cp.Start()
		takes(cp, "first", t)
		config := podConfig(t, cp, dir, "first")
		step := func(name string, do func() error) {
			t.Helper()
			if err := do(); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
		}
		join := func(when string) (lastError string) {
			t.Helper()
			now := config
			now.Dir = filepath.Join(dir, when)
			a, stop := start(t, now)
			defer stop()
			synctest.Wait()
			if _, err := a.GetX509SVID(); err == nil {
				return ""
			}
			return a.Status().LastError
		}
		for i := range 4 {
			for _, s := range []struct {
				name string
				do   func() error
			}{{"prepare", cp.CA.PrepareRoot}, {"activate", cp.CA.ActivateRoot}, {"retire", cp.CA.RetireRoots}} {
				step(s.name, s.do)
				when := fmt.Sprintf("%s %d", s.name, i+1)
				said := join(when)
				if forgotten := i == 3 && s.name != "prepare"; !forgotten && said != "" {
					t.Errorf("%s: %s", when, said)
				} else if forgotten && !strings.Contains(said, "does not have the root by which it was to be recognised") {
					t.Errorf("%s: %q", when, said)
				}
				time.Sleep(2 * time.Hour)
			}
		}
	})
}

// TestPodsTokenGoesToItsControlPlaneOnly: a control plane under another root is not even
// told the token.
func TestPodsTokenGoesToItsControlPlaneOnly(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		cp := identitytest.New(t, filepath.Join(dir, "cp"))
		cp.Start()
		told := false
		cp.Attest = func(context.Context, attest.Evidence) (attest.Attested, error) {
			told = true
			return attest.Attested{}, attest.ErrDenied
		}
		config := podConfig(t, cp, dir, "secret-token")
		config.Roots = config.Roots[:1]
		a, stop := start(t, config)
		synctest.Wait()
		if s := a.Status(); !strings.Contains(s.LastError, "does not have the root by which it was to be recognised") {
			t.Errorf("status %+v", s)
		}
		stop()
		if told {
			t.Error("the token was sent to a stranger")
		}
	})
}

// TestPodsTokenIsRefused: what the log says has the reason and the file, and no token.
func TestPodsTokenIsRefused(t *testing.T) {
	for _, tc := range []struct{ name, token, want string }{
		{"another", "secret-token", "token is not valid"},
		{"none", "", "has 0 bytes"},
		{"too long", strings.Repeat("secret-token", 4096), "not 1 to 16384"},
		{"no file", "remove", "read the service account token"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			dir := t.TempDir()
			synctest.Test(t, func(t *testing.T) {
				cp := identitytest.New(t, filepath.Join(dir, "cp"))
				cp.Start()
				takes(cp, "first", t)
				config := podConfig(t, cp, dir, tc.token)
				if tc.token == "remove" {
					if err := os.Remove(config.TokenFile); err != nil {
						t.Fatal(err)
					}
				}
				var log bytes.Buffer
				config.Log = slog.New(slog.NewJSONHandler(&log, nil))
				a, stop := start(t, config)
				synctest.Wait()
				stop()
				if s := a.Status(); !strings.Contains(s.LastError, tc.want) {
					t.Errorf("status %+v, want %q", s, tc.want)
				}
				if strings.Contains(log.String(), "secret-token") || !strings.Contains(log.String(), tc.want) {
					t.Errorf("log: %s", log.String())
				}
			})
		})
	}
}
