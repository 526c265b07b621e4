package manifest

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"

	"github.com/heddle-mesh/heddle/controlplane/mesh"
	"github.com/heddle-mesh/heddle/identity/spiffeid"
)

var update = flag.Bool("update", false, "rewrite the goldens")

var testOptions = Options{TrustDomain: "shop.example", Workloads: true}

// TestGolden reads testdata/*.txtar: input.yaml, then either model.txt or errors.txt.
func TestGolden(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatalf("no goldens: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) {
			archive, err := txtar.ParseFile(file)
			if err != nil {
				t.Fatal(err)
			}
			input := archive.Files[0]
			objects, err := Parse(input.Name, input.Data, testOptions)
			outcome := txtar.File{Name: "model.txt"}
			if err != nil {
				outcome = txtar.File{Name: "errors.txt", Data: []byte(err.Error() + "\n")}
			}
			for _, o := range objects {
				outcome.Data = append(outcome.Data, dump(o)...)
				checkRoundTrip(t, o)
			}
			if *update {
				archive.Files = []txtar.File{input, outcome}
				if err := os.WriteFile(file, txtar.Format(archive), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if len(archive.Files) != 2 || archive.Files[1].Name != outcome.Name {
				t.Fatalf("want %v, got %s:\n%s", archive.Files[1:], outcome.Name, outcome.Data)
			}
			if d := cmp.Diff(string(archive.Files[1].Data), string(outcome.Data)); d != "" {
				t.Errorf("want -, got +; run with -update to accept:\n%s", d)
			}
		})
	}
}

// checkRoundTrip: the document is read as the same object, as JSON, YAML and printed
// with a status.
func checkRoundTrip(t *testing.T, o Object) {
	t.Helper()
	asYAML, err := YAML(o.Document)
	if err != nil {
		t.Fatal(err)
	}
	printed, err := Stored{Document: o.Document, Generation: 3, Created: 1e18, Status: map[string]int{"live": 3}}.JSON()
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string][]byte{"JSON": o.Document, "YAML": asYAML, "printed": printed} {
		again, err := Parse(name, text, testOptions)
		if err != nil || len(again) != 1 {
			t.Fatalf("%s of %s: %d objects, %v\n%s", name, o.Ref, len(again), err, text)
		}
		if !reflect.DeepEqual(again[0].Object, o.Object) || !bytes.Equal(again[0].Document, o.Document) {
			t.Fatalf("%s of %s is read as another object\nfirst %s\nthen  %s", name, o.Ref, o.Document, again[0].Document)
		}
	}
}

// dump writes the document and the fields of the value that are set.
func dump(o Object) string {
	var b strings.Builder
	fmt.Fprintf(&b, "# line %d\n%s\n", o.Line, o.Document)
	dumpValue(&b, reflect.ValueOf(o.Object).Elem(), "")
	return b.String()
}

func dumpValue(b *strings.Builder, v reflect.Value, path string) {
	if v.IsZero() && v.Kind() != reflect.Uint32 {
		return
	}
	if v.CanInterface() {
		switch text := v.Interface().(type) {
		case mesh.Meta:
			fmt.Fprintf(b, "  %s %s\n", path, text.Ref)
			return
		case spiffeid.ID, netip.Addr, netip.AddrPort, mesh.Name, time.Duration:
			fmt.Fprintf(b, "  %s = %v\n", path, text)
			return
		}
	}
	switch v.Kind() {
	case reflect.Pointer:
		dumpValue(b, v.Elem(), path)
	case reflect.Struct:
		for i := range v.NumField() {
			dumpValue(b, v.Field(i), strings.TrimPrefix(path+"."+v.Type().Field(i).Name, "."))
		}
	case reflect.Slice:
		for i := range v.Len() {
			at := fmt.Sprintf("%s[%d]", path, i)
			if v.Index(i).IsZero() {
				fmt.Fprintf(b, "  %s = empty\n", at)
			}
			dumpValue(b, v.Index(i), at)
		}
	default:
		fmt.Fprintf(b, "  %s = %v\n", path, v.Interface())
	}
}

const someService = `apiVersion: v1
kind: Service
metadata: {name: api, annotations: {note: "a\nb"}}
spec:
  selector: {app: api}
  ports: [{port: 80}]
`

func TestHostileInput(t *testing.T) {
	deep := strings.Repeat("[", 100) + strings.Repeat("]", 100)
	bomb := "a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]\n"
	for _, tc := range []struct{ name, input, want string }{
		{"not UTF-8", "apiVersion: v1\nkind: \xff\n", "input:2: the byte 0xff is not UTF-8"},
		{"UTF-16", "\xff\xfea\x00", "not UTF-8"},
		{"control character", "kind: a\x00b", "control character U+0000"},
		{"escaped control character", strings.Replace(someService, `"a\nb"`, `"a\u0001b"`, 1), "metadata.annotations.note: has the control character U+0001"},
		{"tab", "kind: Service\nmetadata:\n\tname: x\n", "input:3: not YAML: a tab in the indentation"},
		{"deep", "kind: " + deep, "nested deeper"},
		{"deep enough to hurt", strings.Repeat("[", 200_000), "not YAML"},
		{"aliases", bomb, "anchors and aliases"},
		{"merge key", "a: &x {b: c}\nd: {<<: *x}", "anchors and aliases"},
		{"huge", "kind: " + strings.Repeat("x", MaxObject), "at most 1048576"},
		{"documents without end", strings.Repeat("---\n", maxDocuments+1), "documents; at most 50000"},
		{"directive", "%YAML 1.1\n---\nkind: x\n", "directives"},
		{"no mapping", "- a\n- b\n", "want an object"},
		{"second document is broken", someService + "---\nkind: [\n", "input:8: not YAML"},
		{"duplicate key", strings.Replace(someService, "spec:", "kind: Service\nspec:", 1), "kind: given twice"},
		{"duplicate object", someService + "---\n" + someService, "input:8: Service default/api: the same object stands in line 1"},
		{"a number as text", strings.Replace(someService, "name: api,", "name: 5,", 1), "want text, found the number \"5\"; write it in quotes"},
		{"octal", strings.Replace(someService, "80", "080", 1), "want a whole number"},
		{"complex key", "? [a]\n: b\nkind: Service\napiVersion: v1\nmetadata: {name: x}\nspec: {ports: [{port: 1}]}", "a key is a list"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, err := Parse("input", []byte(tc.input), testOptions)
			var list Errors
			if !errors.As(err, &list) || !strings.Contains(err.Error(), tc.want) {
				t.Fatalf("error %v, want one with %q", err, tc.want)
			}
		})
	}
}

func TestErrorsAreBounded(t *testing.T) {
	_, err := Parse("input", []byte(someService+strings.Repeat("---\n[]\n", 10_000)), testOptions)
	var list Errors
	if !errors.As(err, &list) || len(list) != maxErrors+1 {
		t.Fatalf("%d errors", len(list))
	}
}

func TestParsesALotQuickly(t *testing.T) {
	var b strings.Builder
	for i := range 2000 {
		b.WriteString("---\n" + strings.Replace(someService, "name: api", fmt.Sprintf("name: api-%d", i), 1))
	}
	objects, err := Parse("input", []byte(b.String()), testOptions)
	if err != nil || len(objects) != 2000 {
		t.Fatalf("%d objects, %v", len(objects), err)
	}
	if objects[0].Line != 2 || objects[0].Ref.Name.Name != "api-0" {
		t.Errorf("first is %v of line %d", objects[0].Ref, objects[0].Line)
	}
}

func TestWorkloadsOnlyByRegistration(t *testing.T) {
	id, err := spiffeid.New("shop.example", "default", "api")
	if err != nil {
		t.Fatal(err)
	}
	doc, err := EncodeWorkload(&mesh.Workload{Identity: id, Capture: mesh.Explicit,
		Meta: mesh.Meta{Ref: mesh.Ref{Kind: mesh.KindWorkload, Name: mesh.Name{Namespace: "default", Name: "api-1"}}}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Parse("input", doc, Options{}); err == nil || !strings.Contains(err.Error(), "registration") {
		t.Errorf("error %v", err)
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(someService))
	f.Add([]byte("{\"kind\":\"List\",\"items\":[" + "{\"apiVersion\":\"v1\",\"kind\":\"Service\"}]}"))
	files, _ := filepath.Glob("testdata/*.txtar")
	for _, file := range files {
		if a, err := txtar.ParseFile(file); err == nil {
			f.Add(a.Files[0].Data)
		}
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		objects, err := Parse("fuzz", data, testOptions)
		var list Errors
		if err != nil && (!errors.As(err, &list) || len(list) == 0 || objects != nil) {
			t.Fatalf("%d objects beside error %v", len(objects), err)
		}
		for _, o := range objects {
			checkRoundTrip(t, o)
		}
	})
}

// TestClosedPolicy: what cannot be read allows no more than it may have meant.
func TestClosedPolicy(t *testing.T) {
	db, api := mesh.Name{Namespace: "shop", Name: "db"}, mesh.Name{Namespace: "shop", Name: "api"}
	for _, tc := range []struct {
		spec    string
		deny    bool
		targets []mesh.Name
	}{
		{`{"rulez":[]}`, false, nil},
		{`{"action":"Allow","targetRefs":[{"kind":"Service","name":"db"},{"kind":"Service","name":"api","port":1},{"kind":"Service","name":"db"}]}`, false, []mesh.Name{db, api}},
		{`{"action":"Deny","targetRefs":[{"kind":"Service","name":"db"}],"rules":[]}`, true, []mesh.Name{db}},
		{`{"action":"allow","targetRefs":[{"kind":"Service","name":"db"}]}`, true, []mesh.Name{db}},
		{`{"action":7}`, true, nil},
		{`{"targetRefs":[{"kind":"Service","name":"db"},{"kind":"Gateway","name":"api"}]}`, false, nil},
		{`{"targetRefs":[{"kind":"Service","name":"db"},{"kind":"Service","name":"No name"}]}`, false, nil},
		{`{"targetRefs":{"kind":"Service","name":"db"}}`, false, nil},
		{`{"targetRefs":[{"group":"apps","kind":"Service","name":"db"}]}`, false, nil},
		{`[]`, true, nil},
		{`null`, false, nil},
		{`{`, true, nil},
		{``, true, nil},
	} {
		p := ClosedPolicy(mesh.Name{Namespace: "shop", Name: "x"}, []byte(tc.spec))
		refusesAll := len(p.Rules) == 1 && len(p.Rules[0].From) == 0 && len(p.Rules[0].Ports) == 0
		if p.Deny != tc.deny || p.Deny && !refusesAll || !p.Deny && len(p.Rules) > 0 || !slices.Equal(p.Targets, tc.targets) {
			t.Errorf("%s is closed as %+v", tc.spec, p)
		}
	}
}
