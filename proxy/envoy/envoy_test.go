package envoy_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	adminv3 "github.com/envoyproxy/go-control-plane/envoy/admin/v3"

	"github.com/heddle-mesh/heddle/install/parts/partstest"
	"github.com/heddle-mesh/heddle/proxy/envoy"
)

func TestParseVersion(t *testing.T) {
	for in, want := range map[string]string{
		"\n/x/envoy  version: 9e5580933739775e8bce696a57a2e1bc99368f23/1.40.0/Clean/RELEASE/BoringSSL\n": "1.40.0",
		"9e5580933739775e8bce696a57a2e1bc99368f23/1.41.2-dev/Modified/DEBUG/BoringSSL-FIPS":              "1.41.2",
		"nginx version: nginx/1.31.3": "error",
		"":                            "error",
	} {
		v, err := envoy.ParseVersion(in)
		if got := v.String(); err != nil && want != "error" || err == nil && got != want {
			t.Errorf("ParseVersion(%q) = %s, %v; want %s", in, got, err, want)
		}
	}
}

func FuzzParseVersion(f *testing.F) {
	f.Add("envoy  version: 9e5580933739775e8bce696a57a2e1bc99368f23/1.40.0/Clean/RELEASE/BoringSSL")
	f.Fuzz(func(t *testing.T, s string) {
		v, err := envoy.ParseVersion(s)
		if err == nil && (v.Major > 9999 || v.Minor < 0) {
			t.Errorf("%q gave %v", s, v)
		}
	})
}

func TestObtainOverride(t *testing.T) {
	script := func(body string, mode os.FileMode) string {
		path := filepath.Join(t.TempDir(), "envoy")
		if err := os.WriteFile(path, []byte("#!/bin/sh\n"+body+"\n"), mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	for _, c := range []struct{ name, path, wantErr, wantSaid string }{
		{"absent", "/nonexistent/envoy", "use HEDDLE_ENVOY=/nonexistent/envoy: no such file or directory", ""},
		{"directory", t.TempDir(), "not an executable file", ""},
		{"not executable", script("", 0o600), "not an executable file", ""},
		{"another program", script("echo hello 1.2.3", 0o700), "not an Envoy version", ""},
		{"failing", script("exit 3", 0o700), "run it with --version: exit status 3", ""},
		{"other version", script("echo version: 0123456789/1.38.1/Clean/RELEASE/BoringSSL", 0o700), "", "is Envoy 1.38.1; Heddle is tested with 1.40.0"},
		{"patch version", script("echo version: 0123456789/1.40.9/Clean/RELEASE/BoringSSL", 0o700), "", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			var said bytes.Buffer
			_, err := envoy.Obtain(t.Context(), c.path, &said)
			if got := fmt.Sprint(err); (c.wantErr == "") != (err == nil) || !strings.Contains(got, c.wantErr) && err != nil {
				t.Errorf("error is %q, want %q in it", got, c.wantErr)
			}
			if !strings.Contains(said.String(), c.wantSaid) || c.wantSaid == "" && said.Len() > 0 {
				t.Errorf("said %q, want %q in it", &said, c.wantSaid)
			}
		})
	}
}

func TestValidate(t *testing.T) {
	bin := partstest.Envoy(t)
	for _, c := range []struct{ name, config, want string }{
		{"good", `{"static_resources": {}}`, ""},
		{"unknown field", `{"statci_resources": {}}`, `no such field: 'statci_resources'`},
		{"not JSON", `{"admin": `, "envoy refuses the configuration: Unable to parse JSON as proto (INVALID_ARGUMENT: unexpected EOF)"},
		{"missing part", `{"static_resources": {"clusters": [{"name": "a", "type": "EDS"}]}}`,
			"envoy refuses the configuration: cannot create an EDS cluster without an EDS config"},
		{"constraint", `{"static_resources": {"clusters": [{"name": "a", "connect_timeout": "-1s"}]}}`,
			"envoy refuses the configuration: Invalid duration: Expected positive duration"},
		{"empty name", `{"static_resources": {"clusters": [{"name": "", "connect_timeout": "1s"}]}}`,
			"envoy refuses the configuration: invalid field StaticResources.Clusters[0].Name: value length must be at least 1 characters"},
		{"with our log format", `{"application_log_config": {"log_format": {"json_format": {"level": "%l", "msg": "%j"}}}, "static_resources": {"clusters": [{"name": "a", "type": "EDS"}]}}`,
			"envoy refuses the configuration: cannot create an EDS cluster without an EDS config"},
		{"deprecated", `{"static_resources": {"clusters": [{"name": "a", "connect_timeout": "1s", "http2_protocol_options": {}}]}}`,
			"http2_protocol_options"},
	} {
		t.Run(c.name, func(t *testing.T) {
			err := envoy.Validate(t.Context(), bin, []byte(c.config))
			if c.want == "" {
				if err != nil {
					t.Error(err)
				}
				return
			}
			invalid := (*envoy.InvalidError)(nil)
			if !errors.As(err, &invalid) || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "\n") {
				t.Errorf("error is %v, want %q in it", err, c.want)
			}
		})
	}
	if err := envoy.Validate(t.Context(), "/bin/false", nil); err == nil || errors.As(err, new(*envoy.InvalidError)) {
		t.Errorf("a program that is not Envoy gives %v", err)
	}
}

// start runs an Envoy with nothing but an admin socket and waits for it.
func start(t *testing.T) (*envoy.Admin, *exec.Cmd) {
	t.Helper()
	bin, dir := partstest.Envoy(t), t.TempDir()
	config := fmt.Sprintf(`{"admin": {"address": {"pipe": {"path": %q, "mode": 384}}},
		"static_resources": {"clusters": [{"name": "somewhere", "connect_timeout": "1s"}]}}`, dir+"/admin.sock")
	file := filepath.Join(dir, "envoy.json")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(bin, "-c", file, "--disable-hot-restart", "--concurrency", "1", "--log-level", "error")
	cmd.Stderr = t.Output()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	admin := envoy.NewAdmin(dir + "/admin.sock")
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for admin.Ready(ctx) != nil {
		select {
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
			t.Fatal("Envoy does not become ready: ", admin.Ready(t.Context()))
		}
	}
	return admin, cmd
}

func TestAdmin(t *testing.T) {
	admin, cmd := start(t)
	ctx := t.Context()
	info, err := admin.ServerInfo(ctx)
	if err != nil || info.State != adminv3.ServerInfo_LIVE {
		t.Fatalf("server info: %v, %v", info, err)
	}
	if v, err := envoy.ParseVersion(info.Version); err != nil || !v.Compatible() {
		t.Errorf("version %s, %v", v, err)
	}
	clusters, err := admin.Clusters(ctx)
	if err != nil || len(clusters.ClusterStatuses) != 1 || clusters.ClusterStatuses[0].Name != "somewhere" {
		t.Errorf("clusters: %v, %v", clusters, err)
	}
	if dump, err := admin.ConfigDump(ctx); err != nil || !bytes.Contains(dump, []byte(`"somewhere"`)) {
		t.Errorf("config dump: %s, %v", dump, err)
	}
	if stats, err := admin.Prometheus(ctx); err != nil || !bytes.Contains(stats, []byte("# TYPE envoy_server_live gauge")) {
		t.Errorf("stats: %s, %v", stats, err)
	}
	if err := admin.SetLogLevel(ctx, "critical"); err != nil {
		t.Error(err)
	}
	if err := admin.SetLogLevel(ctx, "loud&x"); err == nil || !strings.Contains(err.Error(), "POST /logging?level=loud%26x: 400") {
		t.Errorf("a wrong log level gives %v", err)
	}
	if err := admin.DrainListeners(ctx); err != nil {
		t.Error(err)
	}
	if err := admin.Quit(ctx); err != nil {
		t.Error(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
	if err := admin.Ready(ctx); err == nil || !strings.HasPrefix(err.Error(), "envoy admin GET /ready: dial unix") {
		t.Errorf("an absent Envoy gives %v", err)
	}
}
