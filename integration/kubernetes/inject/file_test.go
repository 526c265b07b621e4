package inject

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"

	"github.com/heddle-mesh/heddle/proxy/probe"
)

var update = flag.Bool("update", false, "rewrite the goldens")

func testConfig() Config {
	c := DefaultConfig()
	c.Image, c.TrustDomain, c.Roots = "heddle.local/heddle:dev", "shop.example", []string{strings.Repeat("0a", 32), strings.Repeat("1b", 32)}
	return c
}

// TestGolden reads testdata/*.txtar: a comment, perhaps flags, input.yaml, then either
// output.yaml and results.txt, or errors.txt.
func TestGolden(t *testing.T) {
	for _, g := range goldens(t) {
		t.Run(g.name, func(t *testing.T) {
			out, results, err := File("input.yaml", g.input, "default", g.config)
			outcome := []txtar.File{{Name: "output.yaml", Data: out}, {Name: "results.txt", Data: describe(results)}}
			if err != nil {
				outcome = []txtar.File{{Name: "errors.txt", Data: []byte(err.Error() + "\n")}}
			}
			inputs := slices.IndexFunc(g.archive.Files, func(f txtar.File) bool { return f.Name == "input.yaml" }) + 1
			if *update {
				g.archive.Files = append(slices.Clone(g.archive.Files[:inputs]), outcome...)
				if err := os.WriteFile(g.path, txtar.Format(g.archive), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if d := cmp.Diff(texts(g.archive.Files[inputs:]), texts(outcome)); d != "" {
				t.Errorf("want -, got +; run with -update to accept:\n%s", d)
			}
		})
	}
}

// TestGoldenProbes: the sidecar reads the probes that it is told, of every golden, and they
// are at the paths that the kubelet asks.
func TestGoldenProbes(t *testing.T) {
	count := 0
	for _, g := range goldens(t) {
		out, _, err := File("input.yaml", g.input, "default", g.config)
		if err != nil {
			continue
		}
		for line := range strings.Lines(string(out)) {
			text, ok := strings.CutPrefix(strings.TrimSpace(line), "value: '{\"/probe/")
			if !ok {
				continue
			}
			probes, err := probe.Parse("{\"/probe/" + strings.TrimSuffix(text, "'"))
			if err != nil {
				t.Errorf("%s: %v", g.name, err)
			}
			for path := range probes {
				count++
				if !strings.Contains(string(out), "path: "+path) {
					t.Errorf("%s: nobody asks %s", g.name, path)
				}
			}
		}
	}
	if count < 15 {
		t.Errorf("only %d probes were read", count)
	}
}

// FuzzFile: whatever a file holds, it is an error or is injected; once injected it is a file
// with the same workloads, which a second injection leaves as it is.
func FuzzFile(f *testing.F) {
	for _, g := range goldens(f) {
		f.Add(g.input)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		once, first, err := File("once", data, "default", testConfig())
		if err != nil {
			return
		}
		twice, again, err := File("twice", once, "default", testConfig())
		if err != nil {
			t.Fatalf("%v\nof\n%s", err, once)
		}
		if d := cmp.Diff(string(once), string(twice)); d != "" {
			t.Errorf("a second injection changed (-) to (+):\n%s", d)
		}
		if len(first) != len(again) {
			t.Errorf("%d workloads became %d:\n%s", len(first), len(again), once)
		}
	})
}

// golden is one file of testdata.
type golden struct {
	name, path string
	archive    *txtar.Archive
	input      []byte
	config     Config
}

func goldens(t testing.TB) []golden {
	t.Helper()
	files, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatalf("no goldens: %v", err)
	}
	var out []golden
	for _, path := range files {
		archive, err := txtar.ParseFile(path)
		if err != nil {
			t.Fatal(err)
		}
		g := golden{name: strings.TrimSuffix(filepath.Base(path), ".txtar"), path: path, archive: archive, config: testConfig()}
		for _, f := range archive.Files {
			switch f.Name {
			case "flags":
				g.config.CNI = strings.Contains(string(f.Data), "cni")
			case "input.yaml":
				g.input = f.Data
			}
		}
		out = append(out, g)
	}
	return out
}

func describe(results []Result) []byte {
	var b strings.Builder
	for _, r := range results {
		fmt.Fprintf(&b, "%d: %s: %v: %s\n", r.Line, r.Object, r.Inject, r.Reason)
	}
	return []byte(b.String())
}

func texts(files []txtar.File) map[string]string {
	out := map[string]string{}
	for _, f := range files {
		out[f.Name] = string(f.Data)
	}
	return out
}
