package ca

import (
	"context"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
)

// TestRotateByItself: after PrepareRoot the rest of a rotation happens when it is due, also
// by an authority that was opened again meanwhile.
func TestRotateByItself(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "ca")
	synctest.Test(t, func(t *testing.T) {
		c := mustOpen(t, dir, testConfig())
		first := c.Root()
		run := func() (stop func()) {
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan error, 1)
			go func() { done <- c.Rotate(ctx) }()
			return func() {
				cancel()
				if err := <-done; err != nil {
					t.Error(err)
				}
			}
		}
		stop := run()
		time.Sleep(24 * time.Hour)
		if !c.Due().IsZero() || len(c.Roots()) != 1 {
			t.Fatalf("without a rotation: due %v, %d roots", c.Due(), len(c.Roots()))
		}
		if err := c.PrepareRoot(); err != nil {
			t.Fatal(err)
		}
		begun := time.Now()
		said := func(after time.Duration, want string) {
			t.Helper()
			time.Sleep(time.Until(begun.Add(after)))
			synctest.Wait()
			var roles []string
			for _, r := range c.Roots() {
				who := "second"
				if r.Cert.Equal(first) {
					who = "first"
				}
				roles = append(roles, who+" "+[...]string{"prepared", "signing", "former"}[r.Role])
			}
			if got := strings.Join(roles, ", "); got != want {
				t.Errorf("after %s: %s, want %s", after, got, want)
			}
		}
		said(time.Hour-time.Second, "first signing, second prepared")
		said(time.Hour, "second signing, first former")
		stop()
		c = mustOpen(t, dir, testConfig())
		stop = run()
		said(2*time.Hour+clockSkew-time.Second, "second signing, first former")
		said(2*time.Hour+clockSkew, "second signing")
		stop()
	})
}

// TestAdopt rotates one authority, and has another follow its files; one that looks away for
// some of the steps follows too.
func TestAdopt(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		leader := mustOpen(t, filepath.Join(dir, "leader"), testConfig())
		files := func() Files {
			t.Helper()
			f, err := ReadFiles(leader.dir)
			if err != nil {
				t.Fatal(err)
			}
			return f
		}
		open := func(name string) *CA {
			t.Helper()
			if err := WriteFiles(filepath.Join(dir, name), files()); err != nil {
				t.Fatal(err)
			}
			return mustOpen(t, filepath.Join(dir, name), testConfig())
		}
		follower, away := open("follower"), open("away")
		id := mustID(t, "spiffe://shop.example/ns/default/sa/api")
		for _, step := range []struct {
			name string
			do   func() error
		}{{"prepare", leader.PrepareRoot}, {"activate", leader.ActivateRoot}, {"retire", leader.RetireRoots}} {
			if err := step.do(); err != nil {
				t.Fatal(err)
			}
			changed := follower.Changed()
			if err := follower.Adopt(files()); err != nil {
				t.Fatalf("%s: %v", step.name, err)
			}
			select {
			case <-changed:
			default:
				t.Errorf("%s: nobody is told", step.name)
			}
			if !follower.Bundle().Equal(leader.Bundle()) || len(follower.Links()) != len(leader.Links()) {
				t.Errorf("%s: %d roots and %d links, not %d and %d", step.name, len(follower.Roots()), len(follower.Links()), len(leader.Roots()), len(leader.Links()))
			}
			if _, _, err := x509svid.Verify(mustSign(t, follower, id), leader.Bundle()); err != nil {
				t.Errorf("%s: %v", step.name, err)
			}
			intermediate := mustSign(t, follower, id)[1]
			if err := follower.Adopt(files()); err != nil || !mustSign(t, follower, id)[1].Equal(intermediate) {
				t.Errorf("%s: the same once more: %v", step.name, err)
			}
			if again := mustOpen(t, follower.dir, testConfig()); !again.Bundle().Equal(leader.Bundle()) {
				t.Errorf("%s: opened again it has another bundle", step.name)
			}
			time.Sleep(2 * time.Hour)
		}
		if err := away.Adopt(files()); err != nil || !away.Root().Equal(leader.Root()) {
			t.Errorf("after steps that it has not seen: %v", err)
		}
	})
}

// TestAdoptRefuses: what is wrong changes nothing, neither in memory nor on disk.
func TestAdoptRefuses(t *testing.T) {
	c := mustOpen(t, filepath.Join(t.TempDir(), "ca"), testConfig())
	good, err := ReadFiles(c.dir)
	if err != nil {
		t.Fatal(err)
	}
	strange := mustOpen(t, filepath.Join(t.TempDir(), "ca"), testConfig())
	other := testConfig()
	other.TrustDomain = "other.example"
	foreign := mustOpen(t, filepath.Join(t.TempDir(), "ca"), other)
	of := func(c *CA) []byte {
		files, err := ReadFiles(c.dir)
		if err != nil {
			t.Fatal(err)
		}
		return files[rootFile]
	}
	for _, tc := range []struct {
		name, key string
		data      []byte
		want      string
	}{
		{"another root", rootFile, of(strange), "root.pem is not one that heddle ca rotate prepared"},
		{"another trust domain", rootFile, of(foreign), "root.pem: it is of trust domain"},
		{"no PEM", nextFile, []byte("x"), "root-next.pem: the first PEM block is not a certificate"},
		{"former root without a time", oldFile, certPEM(c.Root()), "root-old.pem: certificate 1: header Replaced"},
		{"half a link", linkFile, certPEM(c.Root()), "root-links.pem: has 1 certificates"},
	} {
		files := Files{rootFile: good[rootFile]}
		files[tc.key] = tc.data
		bundle := c.Bundle()
		if err := c.Adopt(files); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %v, want %q", tc.name, err, tc.want)
		}
		if err := files.Check("shop.example"); tc.name != "another root" && (err == nil || !strings.Contains(err.Error(), tc.want)) {
			t.Errorf("%s: Check: %v, want %q", tc.name, err, tc.want)
		}
		if now, err := ReadFiles(c.dir); err != nil || len(now) != 1 || string(now[rootFile]) != string(good[rootFile]) || !c.Bundle().Equal(bundle) {
			t.Errorf("%s: changed something: %v", tc.name, err)
		}
	}
	if _, err := FilesOf(map[string][]byte{"root-next.pem": []byte("x")}); err == nil || !strings.Contains(err.Error(), "key root.pem is empty") {
		t.Errorf("no root: %v", err)
	}
	if _, err := FilesOf(map[string][]byte{"root.pem": make([]byte, maxRootFile+1)}); err == nil || !strings.Contains(err.Error(), "key root.pem has 65537 bytes") {
		t.Errorf("a long root: %v", err)
	}
}
