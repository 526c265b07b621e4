package main

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

func backends(t *testing.T, text string) []backendRef {
	t.Helper()
	var out []backendRef
	for _, one := range strings.Fields(text) {
		var name string
		var weight uint32
		if _, err := fmt.Sscanf(strings.Replace(one, "=", " ", 1), "%s %d", &name, &weight); err != nil {
			t.Fatal(err)
		}
		out = append(out, withWeight(backendRef{Name: name, Port: 80}, weight))
	}
	return out
}

func TestShifted(t *testing.T) {
	for _, tc := range []struct {
		base    string
		target  int
		percent uint32
		want    string
	}{
		{"api=100 v2=0", 1, 10, "api=90 v2=10"},
		{"v1=90 v2=10", 1, 100, "v1=0 v2=100"},
		{"a=1 b=1 c=1", 2, 1, "a=50 b=49 c=1"},
		{"a=2 b=1 c=0", 2, 10, "a=60 b=30 c=10"},
		{"a=1 b=1 c=1 d=0", 3, 0, "a=34 b=33 c=33 d=0"},
		{"a=0 b=0 c=7", 2, 40, "a=30 b=30 c=40"},
		{"a=5", 0, 40, "a=100"},
		{"a=1000000 b=1 c=0", 2, 50, "a=50 b=0 c=50"},
	} {
		got := weights(shifted(backends(t, tc.base), tc.target, tc.percent), "default")
		if got != tc.want {
			t.Errorf("%s, %d at %d %%: %s, want %s", tc.base, tc.target, tc.percent, got, tc.want)
		}
	}
}

// FuzzShifted: weights always add up to 100 and the target has its share.
func FuzzShifted(f *testing.F) {
	f.Add([]byte{1, 2, 3}, uint8(1), uint8(30))
	f.Add([]byte{0, 0}, uint8(0), uint8(100))
	f.Fuzz(func(t *testing.T, raw []byte, target, percent uint8) {
		if len(raw) < 2 || len(raw) > 16 {
			return
		}
		var base []backendRef
		for i, w := range raw {
			base = append(base, withWeight(backendRef{Name: fmt.Sprint(i)}, uint32(w)*1000))
		}
		at, share := int(target)%len(base), uint32(percent)%101
		total := uint32(0)
		next := shifted(base, at, share)
		for _, b := range next {
			total += b.weight()
		}
		if total != 100 || next[at].weight() != share {
			t.Errorf("%v with %d at %d: %s", raw, at, share, weights(next, ""))
		}
	})
}

func TestPercents(t *testing.T) {
	for _, tc := range []struct {
		from  uint32
		steps int
		want  string
	}{{0, 4, "[25 50 75 100]"}, {10, 3, "[40 70 100]"}, {99, 10, "[100]"}, {100, 5, "[]"}, {0, 1, "[100]"}} {
		if got := fmt.Sprint(percents(tc.from, tc.steps)); got != tc.want {
			t.Errorf("from %d in %d steps: %s, want %s", tc.from, tc.steps, got, tc.want)
		}
	}
}

func TestSplitKeepsWhatItDoesNotKnow(t *testing.T) {
	const spec = `{"parentRefs":[{"group":"","kind":"Service","name":"api"}],"rules":[
		{"matches":[{"path":{"value":"/a"}}],"timeouts":{"request":"5s"},"backendRefs":[{"name":"api","port":80}]},
		{"matches":[{"path":{"value":"/b"}}],"filters":[{"type":"RequestRedirect","requestRedirect":{"hostname":"x"}}]}]}`
	old := &routeDoc{APIVersion: gatewayAPI, Kind: "HTTPRoute", Metadata: routeMeta{Name: "api-split", Namespace: "default", Labels: map[string]string{"a": "b"}}}
	fatal(t, json.Unmarshal([]byte(spec), &old.Spec))
	next, err := splitRoute(old, "api-split", "default", parentRef{Name: "api"}, backends(t, "api-v1=90 api-v2=10"), true)
	fatal(t, err)
	got, err := json.Marshal(next.Spec)
	fatal(t, err)
	want := `{"parentRefs":[{"group":"","kind":"Service","name":"api"}],"rules":[` +
		`{"backendRefs":[{"name":"api-v1","port":80,"weight":90},{"name":"api-v2","port":80,"weight":10}],"matches":[{"path":{"value":"/a"}}],"timeouts":{"request":"5s"}},` +
		`{"filters":[{"requestRedirect":{"hostname":"x"},"type":"RequestRedirect"}],"matches":[{"path":{"value":"/b"}}]}]}`
	if string(got) != want {
		t.Errorf("spec %s\nwant %s", got, want)
	}
	if old.Metadata.Annotations != nil || next.Metadata.Labels["a"] != "b" {
		t.Error("the old route was changed, or the labels lost")
	}
	back, err := next.undo()
	fatal(t, err)
	before, _ := json.Marshal(old.Spec)
	if after, _ := json.Marshal(back.Spec); string(after) != string(before) || len(back.Metadata.Annotations) != 0 {
		t.Errorf("undone: %s %v", after, back.Metadata.Annotations)
	}
	if _, err := back.undo(); err == nil {
		t.Error("undone twice")
	}
}

func TestPreviousIsBounded(t *testing.T) {
	var r *routeDoc
	for i := range 3 * maxPrevious {
		next, err := splitRoute(r, "api-split", "default", parentRef{Name: "api"}, backends(t, fmt.Sprintf("a=%d", i+1)), true)
		fatal(t, err)
		r = next
	}
	specs, err := r.previous()
	fatal(t, err)
	if len(specs) != maxPrevious {
		t.Errorf("%d specs remembered", len(specs))
	}
	r.Metadata.Annotations[previousAnnotation] = "{broken"
	if _, err := r.undo(); err == nil || !strings.Contains(err.Error(), "damaged") {
		t.Errorf("damaged: %v", err)
	}
	if _, err := splitRoute(r, "api-split", "default", parentRef{}, backends(t, "a=1"), true); err != nil {
		t.Errorf("a damaged memory stops a change: %v", err)
	}
}

func TestRoutesSplitAndUndo(t *testing.T) {
	p := newShop(t)
	code, stdout, stderr := p.heddle("", "routes", "split", "api", "v1=90", "api-v2=10", "--wait")
	if code != 0 || stdout != "httproute/api-split created\n" || stderr != "live on 2 of 2 proxies\n" {
		t.Fatalf("split: %d %q %q", code, stdout, stderr)
	}
	p.same("routes", p.ok("", "routes"), `
SERVICE   ROUTE                 MATCH   BACKENDS              LIVE   STATUS
api       httproute/api-split   all     api-v1=90 api-v2=10   2/2    OK`)
	p.ok("", "routes", "split", "api", "v1=50", "v2=50")
	p.ok("", "routes", "undo", "api")
	var listed struct {
		Items []struct {
			Service, Route, Status string
			Backends               []backendRef
		}
	}
	fatal(t, json.Unmarshal([]byte(p.ok("", "routes", "-o", "json")), &listed))
	if len(listed.Items) != 1 || weights(listed.Items[0].Backends, "default") != "api-v1=90 api-v2=10" || listed.Items[0].Service != "api" {
		t.Errorf("after undo: %+v", listed)
	}
	if out := p.ok("", "routes", "undo", "api", "--wait"); out != "httproute/api-split deleted\n" {
		t.Errorf("second undo: %s", out)
	}
	code, _, stderr = p.heddle("", "routes", "undo", "api")
	if code != exitFailure || !strings.Contains(stderr, "no split to undo") {
		t.Errorf("third undo: %d %s", code, stderr)
	}
	for line, want := range map[string]string{
		"routes split api v1=0 v2=0":      "all weights are 0",
		"routes split api v1=1 api-v1=1":  "twice",
		"routes split api v1":             "VERSION=WEIGHT",
		"routes split api v3=1":           "neither exists",
		"routes split api v1=1 --port 81": "no HTTP port 81 (its ports: 80)",
		"routes shift api v2 --over 0s":   "more than 0",
		"routes shift api v2":             "over",
	} {
		if code, _, stderr := p.heddle("", strings.Fields(line)...); code == 0 || !strings.Contains(stderr, want) {
			t.Errorf("heddle %s: %d %s", line, code, stderr)
		}
	}
}

func TestRoutesShift(t *testing.T) {
	p := newShop(t)
	p.ok("", "routes", "split", "api", "v1=100", "v2=0")
	out := p.ok("", "routes", "shift", "api", "v2", "--over", "40ms", "--steps", "4")
	var steps []string
	for line := range strings.Lines(out) {
		_, step, _ := strings.Cut(strings.TrimSpace(line), " ")
		steps = append(steps, step)
	}
	if got := strings.Join(steps, "; "); got != "api-v1=75 api-v2=25; api-v1=50 api-v2=50; api-v1=25 api-v2=75; api-v1=0 api-v2=100" {
		t.Errorf("steps %s", got)
	}
	if out := p.ok("", "routes", "shift", "api", "v2", "--over", "40ms"); out != "api-v2 has all of the requests already\n" {
		t.Errorf("shift again: %s", out)
	}
	p.ok("", "routes", "undo", "api", "--wait")
	if out := p.ok("", "routes"); !strings.Contains(out, "api-v1=100 api-v2=0") {
		t.Errorf("one undo takes the whole shift back:\n%s", out)
	}
}

// TestShiftInterrupted: what was reached stays, and is what the message says.
func TestShiftInterrupted(t *testing.T) {
	p := newShop(t)
	t.Setenv(controlPlaneEnv, p.socket)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var out, errs buffer
	e := &env{stdin: strings.NewReader(""), stdout: writer(func(b []byte) (int, error) {
		if strings.Contains(string(b), "api-v2=20") {
			cancel() // as Ctrl-C does, in the middle of the second step
		}
		return out.Write(b)
	}), stderr: &errs}
	root := rootCommand(e)
	root.SetArgs([]string{"routes", "shift", "api", "v2", "--over", "50ms"})
	err := root.ExecuteContext(ctx)
	if err == nil || !strings.Contains(err.Error(), "stopped with api-v2 at 20 % of the requests of api: interrupted") || !strings.Contains(err.Error(), "routes undo api") {
		t.Errorf("error %v", err)
	}
	if got := p.ok("", "routes"); !strings.Contains(got, "api=80 api-v2=20") {
		t.Errorf("the route afterwards:\n%s", got)
	}
	p.ok("", "routes", "undo", "api")
	if got := p.ok("", "routes", "-o", "json"); strings.Contains(got, "api-split") {
		t.Errorf("the route after undo:\n%s", got)
	}
}

type writer func([]byte) (int, error)

func (w writer) Write(b []byte) (int, error) { return w(b) }

// TestWaitTimeout names who is late.
func TestWaitTimeout(t *testing.T) {
	p := newShop(t)
	p.register("slow", "slow", 3)
	hold := make(chan struct{})
	var on atomic.Bool
	p.connectJudged("slow", hold, &on)
	t.Cleanup(func() { close(hold) }) // before the proxy is waited for
	on.Store(true)
	start := time.Now()
	code, _, stderr := p.heddle("", "routes", "split", "api", "v1=1", "--wait", "--timeout", "1200ms")
	if code != exitFailure || !strings.Contains(stderr, "live on 2 of 3 proxies after 1.2s; still waiting for default/slow") {
		t.Errorf("exit code %d, %s", code, stderr)
	}
	if !strings.HasPrefix(stderr, "live on 2 of 3 proxies\n") || time.Since(start) < time.Second {
		t.Errorf("no progress told after a second: %s", stderr)
	}
}
