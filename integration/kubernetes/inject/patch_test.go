package inject

import (
	"encoding/json"
	"reflect"
	"testing"

	jsonpatch "gopkg.in/evanphx/json-patch.v4"
)

func TestPatchNamesOnlyWhatIsDifferent(t *testing.T) {
	for _, c := range []struct{ name, before, after, want string }{
		{"nothing", `{"a":[1,{"b":null}]}`, `{"a":[1,{"b":null}]}`, `null`},
		{"a field", `{"a":{"b":1,"c":2}}`, `{"a":{"b":1,"c":3}}`, `[{"op":"replace","path":"/a/c","value":3}]`},
		{"values that are nothing", `{}`, `{"a":false,"b":"","c":0}`,
			`[{"op":"add","path":"/a","value":false},{"op":"add","path":"/b","value":""},{"op":"add","path":"/c","value":0}]`},
		{"escapes", `{"m":{}}`, `{"m":{"heddle.dev/a~b":"x"}}`, `[{"op":"add","path":"/m/heddle.dev~1a~0b","value":"x"}]`},
		{"a removed field", `{"a":1,"b":2}`, `{"b":2}`, `[{"op":"remove","path":"/a"}]`},
		{"a container before a changed one", `{"c":[{"name":"a","x":1}]}`, `{"c":[{"name":"i"},{"name":"a","x":2}]}`,
			`[{"op":"add","path":"/c/0","value":{"name":"i"}},{"op":"replace","path":"/c/1/x","value":2}]`},
		{"a list in another order", `{"c":[{"name":"a"},{"name":"b"}]}`, `{"c":[{"name":"b"},{"name":"a"}]}`,
			`[{"op":"replace","path":"/c","value":[{"name":"b"},{"name":"a"}]}]`},
		{"another type", `{"a":[1]}`, `{"a":{"b":1}}`, `[{"op":"replace","path":"/a","value":{"b":1}}]`},
	} {
		t.Run(c.name, func(t *testing.T) {
			patch, err := Patch(document(t, c.before), document(t, c.after))
			if err != nil {
				t.Fatal(err)
			}
			if got, _ := json.Marshal(patch); string(got) != c.want {
				t.Errorf("%s -> %s\nwant %s\ngot  %s", c.before, c.after, c.want, got)
			}
			checkPatch(t, c.before, c.after)
		})
	}
}

// FuzzPatch: the library that the API server applies patches with makes of any document
// the other.
func FuzzPatch(f *testing.F) {
	f.Add(`{"a":[{"name":"x","b":1},2]}`, `{"a":[{"name":"i"},{"name":"x","b":{"c":[]}},2,3]}`)
	f.Add(`{"a/b":{"~":1}}`, `{"a/b":{"~":2,"":3}}`)
	f.Add(`{"a":1}`, `{"a":1.0,"b":0E333,"c":-0.0}`)
	f.Fuzz(func(t *testing.T, before, after string) {
		for _, text := range []string{before, after} {
			if m, err := Decode([]byte(text)); err != nil || m == nil {
				t.Skip("no JSON object")
			}
		}
		checkPatch(t, before, after)
	})
}

func checkPatch(t *testing.T, before, after string) {
	t.Helper()
	operations, err := Patch(document(t, before), document(t, after))
	if err != nil {
		t.Fatal(err)
	}
	data, err := json.Marshal(operations)
	if err != nil {
		t.Fatal(err)
	}
	patch, err := jsonpatch.DecodePatch(data)
	if err != nil {
		t.Fatalf("%s: %v", data, err)
	}
	canonical, err := json.Marshal(document(t, before))
	if err != nil {
		t.Fatal(err)
	}
	got, err := patch.Apply(canonical)
	if err != nil {
		t.Fatalf("%s of %s: %v", data, before, err)
	}
	// 1.0 and 1 are the same number in JSON, and the first is read as a float: after is
	// compared as what is written of it.
	want, err := json.Marshal(document(t, after))
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(document(t, string(got)), document(t, string(want))) {
		t.Errorf("%s\nmakes of %s\n%s\nwant %s", data, before, got, after)
	}
}

func document(t *testing.T, text string) map[string]any {
	t.Helper()
	m, err := Decode([]byte(text))
	if err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return m
}
