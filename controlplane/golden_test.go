package controlplane

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/heddle-mesh/heddle/controlplane/translate"
	"github.com/heddle-mesh/heddle/controlplane/xds"
	"github.com/heddle-mesh/heddle/install/parts/partstest"
	"github.com/heddle-mesh/heddle/proxy/envoy"
)

var update = flag.Bool("update", false, "rewrite the goldens in testdata")

// TestGoldens tells every story of testdata: the objects in mesh.yaml, and all that they
// put into the cache, or the files that the comment names in a last line such as "Shown:
// routes.json". The real Envoy judges everything.
func TestGoldens(t *testing.T) {
	bin := partstest.Envoy(t)
	files, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatalf("stories: %d, %v", len(files), err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) {
			t.Parallel()
			golden(t, bin, file)
		})
	}
}

func golden(t *testing.T, bin, file string) {
	archive, err := txtar.ParseFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if len(archive.Comment) == 0 || len(archive.Files) == 0 || archive.Files[0].Name != "mesh.yaml" {
		t.Fatalf("%s: want a comment that tells the story, then -- mesh.yaml --", file)
	}
	cache := tell(t, file, archive.Files[0].Data)
	if err := envoy.Validate(t.Context(), bin, staticBootstrap(t, cache)); err != nil {
		t.Error(err)
	}
	got := &txtar.Archive{Comment: archive.Comment, Files: append(archive.Files[:1:1], files(t, cache, archive.Comment)...)}
	if *update {
		if err := os.WriteFile(file, txtar.Format(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(strings.Split(string(want), "\n"), strings.Split(string(txtar.Format(got)), "\n")); diff != "" {
		t.Errorf("the cache differs; if that is meant, go test ./controlplane -run TestGoldens -update (-want +got):\n%s", diff)
	}
}

// shown is a resource as a golden has it.
type shown struct {
	Name     string          `json:"name"`
	Variant  string          `json:"variant,omitempty"`
	Origins  []string        `json:"origins"`
	Needs    []string        `json:"needs,omitempty"`
	Resource json.RawMessage `json:"resource"`
}

// files are the contents of a cache by type, without what is in every mesh.
func files(t *testing.T, cache *xds.Cache, comment []byte) []txtar.File {
	t.Helper()
	ofAll, ofThis := contents(tell(t, "", nil)), contents(cache)
	byType := map[string][]shown{}
	all := slices.SortedFunc(cache.All(), func(a, b *xds.Resource) int { return strings.Compare(a.Key.String(), b.Key.String()) })
	if len(ofThis) > len(ofAll) { // else the story is that of the empty mesh
		all = slices.DeleteFunc(all, func(r *xds.Resource) bool { return ofThis[r.Key.String()] == ofAll[r.Key.String()] })
	}
	for _, r := range all {
		byType[r.Type] = append(byType[r.Type], show(t, r))
	}
	var out []txtar.File
	for _, of := range []struct{ name, typ string }{
		{"clusters.json", translate.ClusterType},
		{"endpoints.json", translate.EndpointsType},
		{"listeners.json", translate.ListenerType},
		{"routes.json", translate.RoutesType},
		{"secrets.json", translate.SecretType},
		{"hosts.json", translate.HostType},
		{"runtime.json", translate.RuntimeType},
	} {
		_, only, limited := bytes.Cut(comment, []byte("\nShown:"))
		if len(byType[of.typ]) == 0 || limited && !bytes.Contains(only, []byte(of.name)) {
			continue
		}
		out = append(out, txtar.File{Name: of.name, Data: indented(t, byType[of.typ])})
	}
	return out
}

func show(t *testing.T, r *xds.Resource) shown {
	t.Helper()
	m, err := r.Message().UnmarshalNew()
	if err != nil {
		t.Fatal(err)
	}
	text, err := protojson.MarshalOptions{UseProtoNames: true}.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	out := shown{Name: r.Name, Variant: r.Variant, Resource: text}
	for _, o := range r.Origins {
		out.Origins = append(out.Origins, refOf(o).String())
	}
	for _, k := range r.Needs {
		out.Needs = append(out.Needs, k.String())
	}
	return out
}

// indented writes JSON in one form; protojson's own white space is random on purpose.
func indented(t *testing.T, v any) []byte {
	t.Helper()
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.SetIndent("", " ")
	if err := e.Encode(v); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}
