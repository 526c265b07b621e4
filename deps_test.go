package heddle_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path"
	"slices"
	"strings"
	"testing"
)

const modulePath = "github.com/heddle-mesh/heddle"

// rule is one line of deps.txt.
type rule struct {
	line      int
	allowed   []string
	forbidden []string // of the standard library
	used      map[string]bool
}

// goPackage is what the test needs of "go list -json".
type goPackage struct {
	ImportPath string
	Doc        string
	Name       string
	GoFiles    []string
	Imports    []string
}

func TestImports(t *testing.T) {
	rules := readRules(t)
	standard := map[string]bool{"C": true, "unsafe": true}
	for _, p := range goList(t, "std") {
		standard[p.ImportPath] = true
	}
	for _, p := range goList(t, "./...") {
		if len(p.GoFiles) == 0 {
			continue // tests only
		}
		name := strings.TrimPrefix(strings.TrimPrefix(p.ImportPath, modulePath), "/")
		r, ok := rules[name]
		if !ok {
			t.Errorf("deps.txt has no line for %s, which imports %s", name, strings.Join(foreign(p.Imports, standard), " "))
			continue
		}
		for _, imp := range p.Imports {
			if err := r.check(imp, standard[imp]); err != nil {
				t.Errorf("deps.txt:%d: %s %v", r.line, name, err)
			}
		}
		for _, a := range r.allowed {
			if !r.used[a] {
				t.Errorf("deps.txt:%d: %s may import %s but does not", r.line, name, a)
			}
		}
		delete(rules, name)
	}
	for name, r := range rules {
		t.Errorf("deps.txt:%d: there is no package %s", r.line, name)
	}
}

func TestEveryPackageSaysWhatItIsFor(t *testing.T) {
	for _, p := range goList(t, "./...") {
		if len(p.GoFiles) > 0 && p.Doc == "" {
			t.Errorf("%s has no package comment", p.ImportPath)
		}
	}
}

// check allows an import or says why not.
func (r *rule) check(imp string, standard bool) error {
	if standard {
		if slices.Contains(r.forbidden, imp) {
			return fmt.Errorf("must not import %s", imp)
		}
		return nil
	}
	short := strings.TrimPrefix(imp, modulePath+"/")
	for _, a := range r.allowed {
		if short == a || short == imp && strings.HasPrefix(imp+"/", a+"/") {
			r.used[a] = true
			return nil
		}
	}
	return fmt.Errorf("may not import %s", short)
}

func foreign(imports []string, standard map[string]bool) []string {
	var out []string
	for _, i := range imports {
		if !standard[i] {
			out = append(out, strings.TrimPrefix(i, modulePath+"/"))
		}
	}
	return out
}

func readRules(t *testing.T) map[string]*rule {
	t.Helper()
	data, err := os.ReadFile("deps.txt")
	if err != nil {
		t.Fatal(err)
	}
	rules := map[string]*rule{}
	last := ""
	for i, line := range strings.Split(string(data), "\n") {
		line, _, _ = strings.Cut(line, "#")
		name, rest, found := strings.Cut(line, "<")
		if !found {
			rest = line // the line before goes on
		} else {
			last = path.Clean(strings.TrimSpace(name))
			if rules[last] != nil {
				t.Fatalf("deps.txt:%d: %s stands twice", i+1, last)
			}
			rules[last] = &rule{line: i + 1, used: map[string]bool{}}
		}
		for _, word := range strings.Fields(rest) {
			if std, no := strings.CutPrefix(word, "!"); no {
				rules[last].forbidden = append(rules[last].forbidden, std)
			} else {
				rules[last].allowed = append(rules[last].allowed, word)
			}
		}
	}
	return rules
}

func goList(t *testing.T, pattern string) []goPackage {
	t.Helper()
	cmd := exec.Command("go", "list", "-e", "-json=ImportPath,Doc,Name,GoFiles,Imports", pattern)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list %s: %v\n%s", pattern, err, stderr.String())
	}
	var packages []goPackage
	for dec := json.NewDecoder(bytes.NewReader(out)); dec.More(); {
		var p goPackage
		if err := dec.Decode(&p); err != nil {
			t.Fatal(err)
		}
		packages = append(packages, p)
	}
	return packages
}
