package agent

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/spiffe/go-spiffe/v2/svid/x509svid"

	"github.com/heddle-mesh/heddle/identity/attest"
	"github.com/heddle-mesh/heddle/identity/internal/identitytest"
)

func testConfig(t *testing.T, cp *identitytest.ControlPlane, dir string) Config {
	t.Helper()
	id := identitytest.ID(t, "api")
	return Config{ID: id, Dir: dir, Address: "controlplane:15010", Token: cp.Token(id), DialContext: cp.DialContext}
}

// start runs an agent until the end of the test, or until the function it returns is called.
func start(t *testing.T, config Config) (*Agent, func()) {
	t.Helper()
	a, err := New(config)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- a.Run(ctx) }()
	stopped := false
	stop := func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	t.Cleanup(stop)
	return a, stop
}

func mustSVID(t *testing.T, a *Agent) *x509svid.SVID {
	t.Helper()
	svid, err := a.GetX509SVID()
	if err != nil {
		t.Fatal(err)
	}
	return svid
}

func TestRenewsAtHalfLife(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		cp := identitytest.New(t, filepath.Join(dir, "cp"))
		cp.Start()
		a, _ := start(t, testConfig(t, cp, filepath.Join(dir, "agent")))
		synctest.Wait()
		last := mustSVID(t, a)
		for range 5 {
			began, updated := time.Now(), a.Updated()
			<-updated
			next := mustSVID(t, a)
			if took := time.Since(began); took < 24*time.Minute || took > 36*time.Minute {
				t.Errorf("renewed after %v, want 30 m give or take 6", took)
			}
			if next.Certificates[0].SerialNumber.Cmp(last.Certificates[0].SerialNumber) == 0 {
				t.Error("the same certificate")
			}
			if keyOf(t, next) == keyOf(t, last) {
				t.Error("the same key")
			}
			last = next
		}
	})
}

func keyOf(t *testing.T, svid *x509svid.SVID) string {
	t.Helper()
	_, key, err := svid.MarshalRaw()
	if err != nil {
		t.Fatal(err)
	}
	return string(key)
}

// TestRenewalNeedsNoToken lets the token end and then spends four lives of an SVID.
func TestRenewalNeedsNoToken(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		cp := identitytest.New(t, filepath.Join(dir, "cp"))
		cp.Start()
		config := testConfig(t, cp, filepath.Join(dir, "agent"))
		config.Token = cp.Token(config.ID, func(s *attest.TokenSpec) { s.SingleUse = true })
		a, _ := start(t, config)
		for range 40 {
			time.Sleep(6 * time.Minute)
			mustSVID(t, a)
		}
		if s := a.Status(); s.LastError != "" {
			t.Errorf("status %+v", s)
		}
	})
}

func TestControlPlaneAway(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		cp := identitytest.New(t, filepath.Join(dir, "cp"))
		cp.Start()
		config := testConfig(t, cp, filepath.Join(dir, "agent"))
		var dials atomic.Int64
		config.DialContext = func(ctx context.Context, network, address string) (net.Conn, error) {
			dials.Add(1)
			return cp.DialContext(ctx, network, address)
		}
		a, stop := start(t, config)
		synctest.Wait()
		mustSVID(t, a)
		cp.Stop()
		stop()
		time.Sleep(20 * time.Minute)

		a, _ = start(t, config) // restarted while the control plane is away
		mustSVID(t, a)
		if !a.Status().FromDisk {
			t.Error("the status does not say that the SVID is from disk")
		}
		dials.Store(0)
		time.Sleep(30 * time.Minute)
		mustSVID(t, a)
		if n := dials.Load(); n < 20 || n > 120 {
			t.Errorf("%d connections in 30 minutes without a control plane", n)
		}
		time.Sleep(11 * time.Minute)
		if _, err := a.GetX509SVID(); err == nil || !strings.Contains(err.Error(), "expired") || !strings.Contains(err.Error(), "control plane") {
			t.Errorf("an hour later: %v, want an error that names the expiry and its cause", err)
		}

		config.Token = cp.Token(config.ID)
		again, _ := start(t, config) // what is on disk has expired
		if _, err := again.GetX509SVID(); err == nil {
			t.Error("used an expired SVID from disk")
		}
		cp.Start()
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
		defer cancel()
		if err := again.Ready(ctx); err != nil {
			t.Errorf("control plane back: %v", err)
		}
	})
}

// TestAnotherControlPlane finds a valid SVID on disk, but the control plane was made anew
// with another root. The token still gives an identity, without waiting for half life.
func TestAnotherControlPlane(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		old := identitytest.New(t, filepath.Join(dir, "old"))
		old.Start()
		a, stop := start(t, testConfig(t, old, filepath.Join(dir, "agent")))
		synctest.Wait()
		mustSVID(t, a)
		stop()

		cp := identitytest.New(t, filepath.Join(dir, "new"))
		cp.Start()
		a, _ = start(t, testConfig(t, cp, filepath.Join(dir, "agent")))
		time.Sleep(time.Second)
		if _, _, err := x509svid.Verify(mustSVID(t, a).Certificates, cp.CA); err != nil {
			t.Errorf("the SVID does not verify with the new control plane: %v (status %+v)", err, a.Status())
		}
		old.Stop()
	})
}

func TestForeignSVIDOnDiskIsNotUsed(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		cp := identitytest.New(t, filepath.Join(dir, "cp"))
		cp.Start()
		config := testConfig(t, cp, filepath.Join(dir, "agent"))
		_, stop := start(t, config)
		synctest.Wait()
		stop()

		var log bytes.Buffer
		config.Log = slog.New(slog.NewTextHandler(&log, nil))
		config.ID = identitytest.ID(t, "db")
		a, err := New(config)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := a.GetX509SVID(); err == nil {
			t.Error("db uses the SVID of api")
		}
		if !strings.Contains(log.String(), "sa/api") {
			t.Errorf("the log does not say whose SVID it found: %s", &log)
		}

		path := filepath.Join(config.Dir, svidFile)
		config.ID = identitytest.ID(t, "api")
		if err := os.Chmod(path, 0o644); err != nil {
			t.Fatal(err)
		}
		if a, err = New(config); err != nil {
			t.Fatal(err)
		}
		if _, err := a.GetX509SVID(); err == nil || !strings.Contains(log.String(), "chmod 600") {
			t.Errorf("a key that others could read: %v, log %s", err, &log)
		}
	})
}

func TestRefusedTokenIsExplained(t *testing.T) {
	dir := t.TempDir()
	for _, tc := range []struct {
		name   string
		change func(*Config, *identitytest.ControlPlane)
		want   string
	}{
		{"none", func(c *Config, _ *identitytest.ControlPlane) { c.Token = "" }, "heddle token create"},
		{"revoked", func(c *Config, cp *identitytest.ControlPlane) { _ = cp.Tokens.Revoke(c.Token.Name()) }, "revoked"},
		{"of another service", func(c *Config, cp *identitytest.ControlPlane) { c.Token = cp.Token(identitytest.ID(t, "db")) }, "is for spiffe://shop.example/ns/default/sa/db"},
		{"expired", func(*Config, *identitytest.ControlPlane) { time.Sleep(time.Hour) }, "expired"},
		{"of another control plane", func(c *Config, cp *identitytest.ControlPlane) {
			other := identitytest.New(t, t.TempDir())
			c.Token = other.Token(c.ID)
		}, "another control plane"},
		{"garbage", func(c *Config, _ *identitytest.ControlPlane) { c.Token = "heddle1.secret" }, "not a join token"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			sub := filepath.Join(dir, strings.ReplaceAll(tc.name, " ", "-"))
			synctest.Test(t, func(t *testing.T) {
				cp := identitytest.New(t, filepath.Join(sub, "cp"))
				cp.Start()
				config := testConfig(t, cp, filepath.Join(sub, "agent"))
				tc.change(&config, cp)
				a, _ := start(t, config)
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				err := a.Ready(ctx)
				if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), tc.want) {
					t.Errorf("Ready: %v, want a reason with %q", err, tc.want)
				}
				if s := a.Status(); s.Failures < 4 || s.Failures > 12 {
					t.Errorf("%d attempts in a minute", s.Failures)
				}
			})
		})
	}
}

func TestJoinByUnixSocket(t *testing.T) {
	dir := t.TempDir()
	cp := identitytest.New(t, filepath.Join(dir, "cp"))
	cp.StartUnix(filepath.Join(dir, "s"))
	uid := uint32(os.Geteuid())
	config := testConfig(t, cp, filepath.Join(dir, "agent"))
	config.Socket, config.Address = filepath.Join(dir, "s"), ""
	config.Token = cp.Token(config.ID, func(s *attest.TokenSpec) { s.UID = &uid })
	a, _ := start(t, config)
	if err := a.Ready(t.Context()); err != nil {
		t.Fatal(err)
	}
	first, updated := mustSVID(t, a), a.Updated()
	a.Renew()
	<-updated
	if mustSVID(t, a) == first {
		t.Error("Renew changed nothing")
	}
}

func TestFullDiskCostsNoIdentity(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		cp := identitytest.New(t, filepath.Join(dir, "cp"))
		cp.Start()
		config := testConfig(t, cp, filepath.Join(dir, "agent"))
		a, err := New(config)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.RemoveAll(config.Dir); err != nil { // as good as full: no file can be made
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- a.Run(ctx) }()
		time.Sleep(3 * time.Hour)
		mustSVID(t, a)
		if s := a.Status(); s.DiskError == "" || s.LastError != "" {
			t.Errorf("status %+v, want a disk error only", s)
		}
		cancel()
		<-done
	})
}

func TestSecretsAreNeverPrinted(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		cp := identitytest.New(t, filepath.Join(dir, "cp"))
		cp.Start()
		config := testConfig(t, cp, filepath.Join(dir, "agent"))
		config.Log = slog.New(slog.NewJSONHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
		a, _ := start(t, config)
		synctest.Wait()
		svid := mustSVID(t, a)
		config.Log.Info("everything", "agent", a, "config", config.Token, "svid", svid, "status", a.Status())
		secrets := []string{strings.Split(config.Token.Reveal(), ".")[2], fmt.Sprintf("%x", keyOf(t, svid)), fmt.Sprint([]byte(keyOf(t, svid)))}
		values := []any{a, config, &config, a.current.Load(), svid, a.Status(), config.Token}
		for _, value := range values {
			for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
				log.WriteString(fmt.Sprintf(verb, value))
			}
		}
		for _, secret := range secrets {
			if strings.Contains(log.String(), secret) {
				t.Errorf("a secret is printed: %s", secret)
			}
		}
	})
}

func FuzzSVIDFile(f *testing.F) {
	dir := f.TempDir()
	cp := identitytest.New(f, filepath.Join(dir, "cp"))
	id := identitytest.ID(f, "api")
	cp.Start()
	a, err := New(Config{ID: id, Dir: filepath.Join(dir, "agent"), Address: "cp", Token: cp.Token(id), DialContext: cp.DialContext})
	if err != nil {
		f.Fatal(err)
	}
	got, err := a.obtain(f.Context())
	if err != nil {
		f.Fatal(err)
	}
	if err := a.store(got); err != nil {
		f.Fatal(err)
	}
	data, err := os.ReadFile(filepath.Join(dir, "agent", svidFile))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	f.Add([]byte(`{"chain":"","key":"","bundle":""}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := a.parse(data, time.Now())
		if err == nil && c.svid.ID.String() != id.String() {
			t.Fatalf("took an SVID of %s", c.svid.ID)
		}
	})
}
