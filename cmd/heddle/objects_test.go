package main

import (
	"encoding/json"
	"errors"
	"path/filepath"
	"strings"
	"testing"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
)

func TestApplyGetDescribeDelete(t *testing.T) {
	p := newShop(t)
	p.same("apply again", p.ok(shop, "apply", "-f", "-"), "service/api unchanged\nservice/api-v1 unchanged\nservice/api-v2 unchanged")
	p.same("get services", p.ok("", "get", "services"), `
SERVICE   PORTS     READY   LIVE   AGE
api       80/http   2/2     2/2    0s
api-v1    80/http   1/1     2/2    0s
api-v2    80/http   1/1     2/2    0s`)
	p.same("get workloads -o wide", p.ok("", "get", "wl", "-o", "wide", "-A"), `
NAMESPACE   WORKLOAD   SERVICES     READY   ZONE   LIVE   AGE   ADDRESSES   CAPTURE       IDENTITY
default     api-1      api,api-v1   yes     a      1/1    0s    10.68.0.1   transparent   spiffe://mesh.local/ns/default/sa/api
default     api-2      api,api-v2   yes     a      1/1    0s    10.68.0.2   transparent   spiffe://mesh.local/ns/default/sa/api`)
	p.same("names", p.ok("", "get", "all", "-o", "name"), "service/api\nservice/api-v1\nservice/api-v2\nworkload/api-1\nworkload/api-2")
	var listed struct {
		Items []struct {
			Kind     string
			Metadata struct{ Name string }
			Status   struct {
				Conditions []struct{ Type, Status string }
				VirtualIPs []string
			}
		}
	}
	fatal(t, json.Unmarshal([]byte(p.ok("", "get", "services", "-o", "json")), &listed))
	if len(listed.Items) != 3 || listed.Items[0].Metadata.Name != "api" || len(listed.Items[0].Status.VirtualIPs) != 2 || listed.Items[0].Status.Conditions[1].Status != "True" {
		t.Errorf("get services -o json: %+v", listed)
	}
	yaml := p.ok("", "get", "service", "api", "-o", "yaml")
	if !strings.HasPrefix(yaml, "apiVersion: v1\nkind: Service\n") {
		t.Errorf("get -o yaml: %s", yaml)
	}
	p.same("what get gives can be applied", p.ok(yaml, "apply", "-f", "-"), "service/api unchanged")
	description := p.ok("", "describe", "service", "api")
	for _, want := range []string{"Proxies:       live on 2 of 2", "Programmed   True     Programmed   live on 2 of 2 proxies", "2 of 2 endpoints are ready", "appProtocol: http", "workload/api-1   1/1    OK"} {
		if !strings.Contains(description, want) {
			t.Errorf("describe lacks %q:\n%s", want, description)
		}
	}
	p.same("delete", p.ok("", "delete", "service", "api-v2", "--wait"), "service/api-v2 deleted")
	code, stdout, _ := p.heddle("", "delete", "service", "api-v2")
	p.same("delete again", stdout, "service/api-v2 not found")
	if code != exitFailure {
		t.Errorf("delete of nothing: exit code %d", code)
	}
	p.ok(shop, "delete", "-f", "-", "--ignore-not-found")
	code, stdout, stderr := p.heddle("", "get", "services")
	if code != 0 || stdout != "" || stderr != "no Service in namespace default\n" {
		t.Errorf("get of nothing: %d %q %q", code, stdout, stderr)
	}
	p.same("empty list", p.ok("", "get", "services", "-o", "json"), "{\n  \"items\": []\n}")
}

func TestApplyTellsEveryProblem(t *testing.T) {
	p := newPlane(t)
	good := p.file("mesh/a.yaml", shop)
	bad := p.file("mesh/b.yaml", "# only ports\napiVersion: v1\nkind: Service\nmetadata: {name: b}\nspec:\n  ports:\n  - {port: 99999}\n  - {prot: 1}\n")
	worse := p.file("mesh/c.json", `{"kind": "Serwice"}`)
	p.file("mesh/empty.yaml", "# nothing\n---\n")
	p.file("mesh/notes.txt", "not read")
	code, stdout, stderr := p.heddle("", "apply", "-f", filepath.Dir(good))
	if code != exitFailure || stdout != "" {
		t.Errorf("exit code %d, stdout %q", code, stdout)
	}
	for _, want := range []string{bad + ":7: Service default/b: spec.ports[0].port: ", bad + ":8: Service default/b: spec.ports[1].prot: ", worse + ":1: "} {
		if !strings.Contains(stderr, want) {
			t.Errorf("stderr lacks %q:\n%s", want, stderr)
		}
	}
	if strings.Contains(stderr, "empty.yaml") || strings.Contains(stderr, "heddle:") {
		t.Errorf("stderr: %s", stderr)
	}
	// A duplicate is seen only in the whole, and still has its file and line.
	twice := p.file("mesh/b.yaml", shop[:strings.Index(shop, "---")])
	p.file("mesh/c.json", "")
	code, _, stderr = p.heddle("", "apply", "-f", filepath.Dir(good))
	if code != exitFailure || !strings.Contains(stderr, twice+":2: Service default/api: ") {
		t.Errorf("duplicate: %d %s", code, stderr)
	}
	p.same("dry run", p.ok("", "apply", "-f", good, "--dry-run"), "service/api created (dry run)\nservice/api-v1 created (dry run)\nservice/api-v2 created (dry run)")
	if out := p.ok("", "get", "all", "-o", "name"); out != "" {
		t.Errorf("something was stored: %s", out)
	}
}

func TestWaitTellsWhoRefuses(t *testing.T) {
	p := newShop(t)
	p.register("picky", "picky", 3)
	p.connect("picky", func(r *discoveryv3.DeltaDiscoveryResponse) error {
		for _, resource := range r.GetResources() {
			if strings.Contains(string(resource.GetResource().GetValue()), "/evil") {
				return errors.New("not this")
			}
		}
		return nil
	})
	route := "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {name: r}\nspec:\n  parentRefs: [{group: '', kind: Service, name: api}]\n" +
		"  rules: [{matches: [{path: {value: /PATH}}], backendRefs: [{name: BACKEND, port: 80}]}]\n"
	fill := func(path, backend string) string {
		return strings.NewReplacer("PATH", path, "BACKEND", backend).Replace(route)
	}
	code, stdout, stderr := p.heddle(fill("evil", "api-v1"), "apply", "-f", "-", "--wait")
	p.same("stdout", stdout, "httproute/r created")
	p.same("stderr", stderr, "live on 2 of 3 proxies\nrefused by default/picky: RouteConfiguration api.default:80, made from httproute/r: not this")
	if code != exitFailure {
		t.Errorf("exit code %d", code)
	}
	// Unchanged is no success either as long as it is refused.
	if code, _, stderr := p.heddle(fill("evil", "api-v1"), "apply", "-f", "-", "--wait"); code != exitFailure || !strings.Contains(stderr, "not this") {
		t.Errorf("again: %d %s", code, stderr)
	}
	if out := p.ok("", "proxies"); !strings.Contains(out, "default/picky   refuses 1   ") {
		t.Errorf("proxies: %s", out)
	}
	code, stdout, _ = p.heddle("", "check", "-o", "json")
	if code != exitFailure || !strings.Contains(stdout, `"check": "refusals"`) || !strings.Contains(stdout, "change HTTPRoute default/r") {
		t.Errorf("check: %d %s", code, stdout)
	}
	if out := p.ok("", "config", "picky", "--type", "route"); !strings.Contains(out, "service/api@1 httproute/r@1   refused: not this") {
		t.Errorf("config: %s", out)
	}
	code, _, stderr = p.heddle(fill("good", "nobody"), "apply", "-f", "-", "--wait")
	if code != 0 || !strings.Contains(stderr, "live on 3 of 3 proxies\nwarning: httproute/r: backend service default/nobody does not exist") {
		t.Errorf("missing backend: %d %s", code, stderr)
	}
}

func TestUsage(t *testing.T) {
	p := newPlane(t)
	for _, tc := range []struct {
		line string
		code int
		want string
	}{
		{"get pods", exitUsage, `there is no kind "pods"; there are services, workloads`},
		{"get", exitUsage, "Usage: heddle get KIND|all [NAME]"},
		{"get services -o table", exitUsage, "it is one of json, yaml, wide, name"},
		{"get services --nope", exitUsage, "unknown flag"},
		{"get service none", exitFailure, "Service default/none not found"},
		{"get all x", exitUsage, "takes no name"},
		{"apply", exitUsage, "-f FILE"},
		{"apply -f /nowhere.yaml", exitFailure, "no such file"},
		{"delete service", exitUsage, "KIND NAME"},
		{"config none", exitFailure, "workload default/none is not registered"},
		{"config x --type secret", exitUsage, "listener, route"},
		{"routes split none v1=1", exitFailure, `there is no service "none"`},
		{"get services --control-plane 127.0.0.1:15010", exitUsage, "Unix socket"},
		{"get services --control-plane /nowhere.sock", exitFailure, "does not answer"},
	} {
		code, _, stderr := p.heddle("", strings.Fields(tc.line)...)
		if code != tc.code || !strings.Contains(stderr, tc.want) {
			t.Errorf("heddle %s: exit code %d, %s", tc.line, code, stderr)
		}
	}
}

func TestFindsTheControlPlane(t *testing.T) {
	p := newPlane(t)
	t.Setenv("XDG_STATE_HOME", filepath.Join(p.dir, "home"))
	var out, errs buffer
	t.Setenv(controlPlaneEnv, "")
	if code := run([]string{"get", "services"}, &env{stdin: strings.NewReader(""), stdout: &out, stderr: &errs}); code != exitFailure || !strings.Contains(errs.String(), "heddle up") {
		t.Errorf("none runs: %d %s", code, errs.String())
	}
	one := newPlaneAt(t, filepath.Join(p.dir, "home", "heddle", "projects", "shop"), p)
	errs = buffer{}
	if code := run([]string{"get", "services"}, &env{stdin: strings.NewReader(""), stdout: &out, stderr: &errs}); code != 0 {
		t.Errorf("one runs at %s: %d %s", one, code, errs.String())
	}
	newPlaneAt(t, filepath.Join(p.dir, "home", "heddle", "projects", "other"), p)
	if code := run([]string{"get", "services"}, &env{stdin: strings.NewReader(""), stdout: &out, stderr: &errs}); code != exitUsage || !strings.Contains(errs.String(), "several control planes") {
		t.Errorf("two run: %d %s", code, errs.String())
	}
}

func TestCompletion(t *testing.T) {
	p := newShop(t)
	for line, want := range map[string]string{
		"get se":            "services\n",
		"get service api-":  "api-v1\napi-v2\n",
		"describe wl ":      "api-1\napi-2\n",
		"config a":          "api-1\napi-2\n",
		"routes split api-": "api-v1\napi-v2\n",
		"get services -o ":  "json\nyaml\nwide\nname\n",
	} {
		words := strings.Split(line, " ")
		got := p.ok("", append([]string{"__complete"}, words...)...)
		if !strings.HasPrefix(got, want+":") {
			t.Errorf("completion of %q: %q, want %q", line, got, want)
		}
	}
}
