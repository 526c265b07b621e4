package cni

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"
)

var update = flag.Bool("update", false, "rewrite the goldens")

var testEntry = entry{Type: Name, Kubeconfig: "/etc/cni/net.d/heddle-cni.kubeconfig", SkipNamespaces: []string{"kube-system", "heddle-system"}}

// TestChain has configurations as networks write them, what becomes of them, and what is
// left when the plugin is taken out: "before", unless there is an "after".
func TestChain(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatalf("no goldens: %v", err)
	}
	for _, path := range files {
		t.Run(filepath.Base(path), func(t *testing.T) {
			archive, err := txtar.ParseFile(path)
			if err != nil {
				t.Fatal(err)
			}
			have := map[string][]byte{}
			for _, f := range archive.Files {
				have[f.Name] = f.Data
			}
			chained, after := []byte(nil), have["before"]
			if want, ok := have["after"]; ok {
				after = want
			}
			chained, err = chain(have["before"], testEntry)
			outcome := "chained"
			if err != nil {
				outcome, chained = "error", []byte(err.Error()+"\n")
			} else {
				if again, err := chain(chained, testEntry); err != nil || !bytes.Equal(again, chained) {
					t.Errorf("chained again: %v: %s", err, again)
				}
				if got, err := unchain(chained); err != nil || !bytes.Equal(got, after) {
					t.Errorf("taken out: %v: %s", err, cmp.Diff(string(after), string(got)))
				}
			}
			if *update {
				files := []txtar.File{{Name: "before", Data: have["before"]}, {Name: outcome, Data: chained}}
				if _, ok := have["after"]; ok {
					files = append(files, txtar.File{Name: "after", Data: after})
				}
				archive.Files = files
				if err := os.WriteFile(path, txtar.Format(archive), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if diff := cmp.Diff(string(have[outcome]), string(chained)); diff != "" {
				t.Errorf("%s: %s", outcome, diff)
			}
		})
	}
}

// FuzzChain: whatever the text is, what is chained has the plugins that were there and ours
// after them, all else is as it was, and taking it out gives the same bytes.
func FuzzChain(f *testing.F) {
	files, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(files) == 0 {
		f.Fatalf("no goldens: %v", err)
	}
	for _, path := range files {
		archive, err := txtar.ParseFile(path)
		if err != nil {
			f.Fatal(err)
		}
		for _, file := range archive.Files {
			f.Add(file.Data)
		}
	}
	f.Fuzz(func(t *testing.T, before []byte) {
		chained, err := chain(before, testEntry)
		if err != nil {
			return
		}
		clean, err := unchain(before)
		if err != nil {
			t.Fatalf("%q can be chained, and not cleaned: %v", before, err)
		}
		if after, err := unchain(chained); err != nil || !bytes.Equal(after, clean) {
			t.Fatalf("%q: taken out: %v: %q", before, err, after)
		}
		have, now := document(t, clean), document(t, chained)
		last := len(now.plugins) - 1
		if diff := cmp.Diff(have.others, now.others); diff != "" {
			t.Fatalf("%q: other fields: %s", before, diff)
		}
		if bytes.Equal(before, chained) {
			return // it was there already, wherever it stands
		}
		if diff := cmp.Diff(have.plugins, now.plugins[:last]); diff != "" {
			t.Fatalf("%q: other plugins: %s", before, diff)
		}
		var got entry
		if err := json.Unmarshal(now.plugins[last], &got); err != nil || !cmp.Equal(got, testEntry) {
			t.Fatalf("%q: ours is %s", before, now.plugins[last])
		}
	})
}

// parsed is a configuration read in the plain way.
type parsed struct {
	plugins []json.RawMessage
	others  map[string]json.RawMessage
}

func document(t *testing.T, text []byte) parsed {
	t.Helper()
	var p parsed
	if err := json.Unmarshal(text, &p.others); err != nil {
		t.Fatalf("%q: %v", text, err)
	}
	if err := json.Unmarshal(p.others["plugins"], &p.plugins); err != nil {
		t.Fatalf("%q: %v", text, err)
	}
	delete(p.others, "plugins")
	return p
}
