package main

import (
	"encoding/json"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestProxies(t *testing.T) {
	p := newShop(t)
	out := p.ok("", "proxies", "-o", "wide")
	if lines := strings.Split(out, "\n"); !strings.HasPrefix(lines[0], "PROXY           STATE    REVISION   ACK") || !strings.HasPrefix(lines[1], "default/api-1   synced") || len(lines) != 4 {
		t.Errorf("proxies:\n%s", out)
	}
	var listed struct{ Items []proxyItem }
	fatal(t, json.Unmarshal([]byte(p.ok("", "proxies", "-o", "json")), &listed))
	if len(listed.Items) != 2 || !listed.Items[1].Synced || listed.Items[1].Workload != "api-2" || listed.Items[1].Revision == 0 {
		t.Errorf("proxies -o json: %+v", listed)
	}
}

func TestConfigTellsOrigins(t *testing.T) {
	p := newShop(t)
	p.ok("", "routes", "split", "api", "v1=1", "v2=1")
	out := p.ok("", "config", "api-1", "--type", "route,endpoints")
	for _, want := range []string{"route      api.default:80", "service/api@1 httproute/api-split@1", "endpoint   api-v2.default:80"} {
		if !strings.Contains(out, want) {
			t.Errorf("config lacks %q:\n%s", want, out)
		}
	}
	var listed struct{ Items []configItem }
	fatal(t, json.Unmarshal([]byte(p.ok("", "config", "api-1", "-o", "json", "--type", "cluster")), &listed))
	for _, i := range listed.Items {
		if i.Type != "cluster" || len(i.Origins) == 0 || !strings.Contains(string(i.Config), `"name"`) {
			t.Errorf("config -o json: %+v", i)
		}
	}
	if yaml := p.ok("", "config", "api-1", "-o", "yaml", "--type", "listener"); !strings.HasPrefix(yaml, "items:\n") {
		t.Errorf("config -o yaml: %.200s", yaml)
	}
}

func TestDNS(t *testing.T) {
	p := newShop(t)
	var listed struct {
		Items []struct{ Status struct{ VirtualIPs []string } }
	}
	fatal(t, json.Unmarshal([]byte(p.ok("", "get", "services", "-o", "json")), &listed))
	vip := listed.Items[0].Status.VirtualIPs
	for _, name := range []string{"api", "api.default", "api.default.svc.cluster.local", "api.default.svc.cluster.local."} {
		out := p.ok("", "dns", name)
		for _, address := range vip {
			if !strings.Contains(out, "api.default.svc.cluster.local. ") || !strings.Contains(out, " "+address+"\n") {
				t.Errorf("dns %s lacks %s:\n%s", name, address, out)
			}
		}
	}
	if out := p.ok("", "dns", vip[0]); !strings.HasSuffix(out, " PTR api.default.svc.cluster.local.\n") {
		t.Errorf("dns %s: %s", vip[0], out)
	}
	if out := p.ok("", "dns", "api", "-t", "A", "-o", "json"); !strings.Contains(out, `"status": "NOERROR"`) || strings.Contains(out, "AAAA") {
		t.Errorf("dns -o json: %s", out)
	}
	for line, code := range map[string]int{"dns none": exitFailure, "dns example.com": exitFailure, "dns api -t X": exitUsage, "dns a..b": exitUsage} {
		if got, _, stderr := p.heddle("", strings.Fields(line)...); got != code {
			t.Errorf("heddle %s: exit code %d, %s", line, got, stderr)
		}
	}
}

func TestSVID(t *testing.T) {
	p := newShop(t)
	t.Setenv("XDG_STATE_HOME", p.dir)
	if out := p.ok("", "svid", "api-1"); !strings.Contains(out, "spiffe://mesh.local/ns/default/sa/api") || !strings.Contains(out, "cannot be asked") {
		t.Errorf("without its sidecar: %s", out)
	}
	dir := filepath.Join(p.dir, "sidecars", "api-1")
	fatal(t, os.MkdirAll(dir, 0o700))
	l, err := net.Listen("unix", filepath.Join(dir, "status.sock"))
	fatal(t, err)
	now := time.Now()
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_ = json.NewEncoder(w).Encode(map[string]any{"workload": "api-1", "namespace": "default", "identity": map[string]any{
			"id": "spiffe://mesh.local/ns/default/sa/api", "expires": now.Add(time.Hour + 5*time.Second), "renewAt": now.Add(30*time.Minute + 5*time.Second)}})
	})}
	served := make(chan error, 1)
	go func() { served <- server.Serve(l) }()
	t.Cleanup(func() { server.Close(); <-served })
	if out := p.ok("", "svid", "api-1"); !strings.Contains(out, "(in 1h0m)") || !strings.Contains(out, "(in 30m") {
		t.Errorf("with its sidecar: %s", out)
	}
	if out := p.ok("", "svid", "api-1", "-o", "json", "--status", filepath.Join(dir, "status.sock")); !strings.Contains(out, `"source": "sidecar"`) || strings.Contains(out, "lastError") {
		t.Errorf("-o json: %s", out)
	}
}

func TestCheck(t *testing.T) {
	p := newShop(t)
	out := p.ok("", "check")
	if !strings.Contains(out, "ok       certificates: ") || !strings.HasSuffix(out, "0 errors, 0 warnings\n") {
		t.Errorf("check:\n%s", out)
	}
	p.ok("apiVersion: v1\nkind: Service\nmetadata: {name: nobody}\nspec: {selector: {app: nobody}, ports: [{port: 1}]}\n", "apply", "-f", "-")
	out = p.ok("", "check")
	if !strings.Contains(out, "warning  services: service default/nobody has no endpoint") || !strings.Contains(out, "\n         fix: start a workload") {
		t.Errorf("check:\n%s", out)
	}
	if code, _, _ := p.heddle("", "check", "--strict"); code != exitFailure {
		t.Errorf("check --strict: exit code %d", code)
	}
}

func TestTokens(t *testing.T) {
	p := newPlane(t)
	file := filepath.Join(p.dir, "token")
	code, stdout, stderr := p.heddle("", "token", "create", "--service", "api", "--file", file)
	secret, err := os.ReadFile(file)
	fatal(t, err)
	if code != 0 || stdout != "" || len(secret) < 20 || strings.Contains(stderr, strings.TrimSpace(string(secret))) || !strings.Contains(stderr, "spiffe://mesh.local/ns/default/sa/api") {
		t.Fatalf("create: %d %q %q", code, stdout, stderr)
	}
	if info, _ := os.Stat(file); info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v", info.Mode())
	}
	if code, _, _ := p.heddle("", "token", "create", "--service", "api", "--file", file); code != exitFailure {
		t.Error("a token was overwritten")
	}
	p.ok("", "token", "create", "--service", "api", "--file", file, "--keep")
	if after, err := os.ReadFile(file); err != nil || string(after) != string(secret) {
		t.Errorf("--keep changed the token: %v", err)
	}
	if code, _, _ := p.heddle("", "token", "create", "--service", "api", "--keep"); code != exitUsage {
		t.Error("--keep without a file")
	}
	var listed struct{ Items []tokenItem }
	fatal(t, json.Unmarshal([]byte(p.ok("", "token", "list", "-o", "json")), &listed))
	if len(listed.Items) != 1 {
		t.Fatalf("list: %+v", listed)
	}
	p.ok("", "token", "revoke", listed.Items[0].Name)
	p.same("after revoke", p.ok("", "token", "list", "-o", "json"), "{\n  \"items\": []\n}")
	if code, _, _ := p.heddle("", "token", "create"); code == 0 {
		t.Error("a token for nobody")
	}
}
