package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/heddle-mesh/heddle/install/parts"
	"github.com/heddle-mesh/heddle/install/parts/partstest"
	"github.com/heddle-mesh/heddle/proxy/capture"
)

// TestExample runs the example shop as "make run" does, with real nginx, PostgreSQL and
// Jaeger, and holds it to what its README promises.
func TestExample(t *testing.T) {
	inBestMode(t, func(t *testing.T, mode string) {
		p := startExample(t, mode)
		t.Run("document", func(t *testing.T) {
			var document map[string]any
			if err := json.Unmarshal(p.shop(t, "frontend-0", "http://api/"), &document); err != nil || document["id"] == nil {
				t.Errorf("http://api/ answers no document: %v %v", document, err)
			}
		})
		t.Run("versions", func(t *testing.T) {
			if v := strings.TrimSpace(string(p.shop(t, "frontend-0", "http://api/version"))); v != "v1" && v != "v2" {
				t.Errorf("http://api/version answers %q", v)
			}
		})
		t.Run("page", func(t *testing.T) {
			if page := p.get(t, "http://127.0.0.1:8080/"); !strings.Contains(string(page), "<html") {
				t.Errorf("the page is %.100q", page)
			}
		})
		t.Run("audit", func(t *testing.T) {
			// PostgreSQL answers an SSLRequest with one byte, S or N; the policy lets nobody but the API get so far.
			for workload, allowed := range map[string]bool{"api-v1-0": true, "frontend-0": false, "loadgen-0": false} {
				if got := p.sslRequest(workload); got != allowed {
					t.Errorf("%s reaches the database: %v, want %v", workload, got, allowed)
				}
			}
		})
		t.Run("trace", func(t *testing.T) { p.awaitTrace(t) })
		t.Run("trace of a change", func(t *testing.T) { p.awaitChange(t) })
	})
}

// startExample starts a copy of the example under the harness's project name.
func startExample(t *testing.T, mode string) *project {
	t.Helper()
	partstest.Jaeger(t)
	p := &project{t: t, mode: mode, programs: build(t)}
	p.makeDirs()
	out, err := exec.Command("go", "build", "-o", filepath.Dir(p.heddle)+"/", "../../install/examples/shop/...").CombinedOutput()
	if err != nil {
		t.Fatalf("build the example: %v\n%s", err, out)
	}
	if err := os.CopyFS(filepath.Join(p.dir, "shop"), os.DirFS("../../install/examples/shop")); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(p.dir, "shop", "heddle.yaml")
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	p.write(file, strings.Replace(string(text), "name: shop", "name: e", 1))
	if err := os.Rename(file, filepath.Join(p.dir, "shop", "heddle.yaml")); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.stop)
	cache, err := parts.Dir()
	if err != nil {
		t.Fatal(err)
	}
	args := []string{p.heddle, "up", "-f", file, "--detach", "--wait", "--timeout", "120s", "--capture", mode}
	if mode == transparent {
		args = append([]string{p.app, "isolate"}, args...)
	}
	cmd := p.command(args[0], args[1:]...)
	// The example's parts come from the cache of whoever tests.
	cmd.Env = append(cmd.Env, "XDG_CACHE_HOME="+filepath.Dir(filepath.Dir(cache)))
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("heddle up: %v\n%s", err, out)
	}
	p.left = p.observe()
	return p
}

// shop fetches a URL from inside a workload with the test's program.
func (p *project) shop(t *testing.T, workload, url string) []byte {
	t.Helper()
	a, err := p.Ask(workload, "get", url)
	if err != nil || a.Code != http.StatusOK {
		t.Fatalf("%s from %s: %+v, %v", url, workload, a, err)
	}
	return []byte(a.Body)
}

// get fetches a URL of the machine that the mesh is on.
func (p *project) get(t *testing.T, url string) []byte {
	t.Helper()
	body, err := p.tryGet(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	return body
}

func (p *project) tryGet(ctx context.Context, url string) ([]byte, error) {
	dial := new(net.Dialer).DialContext
	if p.mode == transparent { // the test put the mesh into a network namespace of its own
		supervisor, err := p.Process("supervisor")
		if err != nil {
			return nil, err
		}
		ns, err := capture.OpenNamespace(fmt.Sprintf("/proc/%d/ns/net", supervisor.PID), capture.Transparent, slog.New(slog.DiscardHandler))
		if err != nil {
			return nil, err
		}
		defer ns.Close()
		dial = ns.Dial
	}
	client := &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{DialContext: dial, DisableKeepAlives: true}}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	resp, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	return io.ReadAll(io.LimitReader(resp.Body, 16<<20))
}

// sslRequest reports whether PostgreSQL itself answers a workload.
func (p *project) sslRequest(workload string) bool {
	a, err := p.Ask(workload, "raw", "db:5432", "0000000804d2162f")
	return err == nil && (a.Body == "N" || a.Body == "S")
}

// span is what Jaeger's query API says of one.
type span struct {
	SpanID, ProcessID, OperationName string
	References                       []struct{ SpanID string }
	Tags                             []struct {
		Key   string
		Value any
	}
}

// jaegerTrace is what Jaeger's query API says of a trace.
type jaegerTrace struct {
	Spans     []span
	Processes map[string]struct{ ServiceName string }
}

// traces asks Jaeger for the newest that a service is in.
func (p *project) traces(t *testing.T, service string) ([]jaegerTrace, error) {
	t.Helper()
	body, err := p.tryGet(t.Context(), "http://127.0.0.1:16686/api/traces?limit=20&service="+service)
	if err != nil {
		return nil, err
	}
	var list struct{ Data []jaegerTrace }
	return list.Data, json.Unmarshal(body, &list)
}

// awaitChange changes a route and waits for the control plane's own trace of that, from
// the object's arrival to the last proxy's answer.
func (p *project) awaitChange(t *testing.T) {
	t.Helper()
	if _, err := p.Heddle("routes", "split", "api", "v1=50", "v2=50", "--wait"); err != nil {
		t.Fatal(err)
	}
	await(t, 60*time.Second, "the trace of a change in Jaeger", func() error {
		traces, err := p.traces(t, "heddle-controlplane")
		if err != nil {
			return err
		}
		var seen []string
		for _, trace := range traces {
			var change, translate bool
			for _, s := range trace.Spans {
				seen = append(seen, s.OperationName+" "+s.tag("heddle.objects")+" "+s.tag("heddle.proxies"))
				// Nothing else is as many streams: of six sidecars the Envoys' and the agents'.
				change = change || s.OperationName == "change" && strings.Contains(s.tag("heddle.objects"), "HTTPRoute default/api-split") && s.tag("heddle.proxies") == "12"
				translate = translate || s.OperationName == "translate"
			}
			if change && translate && len(trace.Spans) == 2 {
				return nil
			}
		}
		return fmt.Errorf("there are only %q", seen)
	})
}

// awaitTrace waits for a trace that goes from the load generator through the sidecars of
// all tiers to the API's own database span, as one tree.
func (p *project) awaitTrace(t *testing.T) {
	t.Helper()
	want := []string{"loadgen client", "frontend server", "frontend client", "api server", "api client SELECT documents"}
	await(t, 60*time.Second, "a whole trace in Jaeger", func() error {
		traces, err := p.traces(t, "loadgen")
		if err != nil {
			return err
		}
		problem := errors.New("there are no traces")
		for _, trace := range traces {
			var have []string
			for _, s := range trace.Spans {
				name := trace.Processes[s.ProcessID].ServiceName + " " + s.tag("span.kind")
				if s.tag("db.system.name") != "" {
					name += " " + s.OperationName
				}
				have = append(have, name)
			}
			if missing := slices.DeleteFunc(slices.Clone(want), func(w string) bool { return slices.Contains(have, w) }); len(missing) > 0 {
				problem = fmt.Errorf("a trace lacks %q; it has %q", missing, have)
				continue
			}
			return oneTree(trace.Spans)
		}
		return problem
	})
}

func (s span) tag(key string) string {
	for _, t := range s.Tags {
		if t.Key == key {
			return fmt.Sprint(t.Value)
		}
	}
	return ""
}

// oneTree checks that all spans but one have a parent among them, that one names the
// route, and that those of sidecars name both ends.
func oneTree(spans []span) error {
	ids := map[string]bool{}
	for _, s := range spans {
		ids[s.SpanID] = true
	}
	roots, identities, routed := 0, map[string]bool{}, false
	for _, s := range spans {
		if !slices.ContainsFunc(s.References, func(r struct{ SpanID string }) bool { return ids[r.SpanID] }) {
			roots++
		}
		routed = routed || strings.HasPrefix(s.tag("heddle.route"), "HTTPRoute/default/api-split/")
		for _, key := range []string{"heddle.source.id", "heddle.destination.id"} {
			identities[s.tag(key)] = true
		}
	}
	if !routed {
		return errors.New("no span names the route that was taken")
	}
	if roots != 1 {
		return fmt.Errorf("%d spans have no parent, want one tree", roots)
	}
	for _, id := range []string{"loadgen", "frontend", "api"} {
		if !identities["spiffe://mesh.local/ns/default/sa/"+id] {
			return fmt.Errorf("no span names the identity of %s", id)
		}
	}
	return nil
}
