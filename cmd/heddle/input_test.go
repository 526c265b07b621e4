package main

import (
	"bytes"
	"testing"
)

// FuzzInput: whatever the files hold, a line of the joined input is found again in its
// file, and reading references neither panics nor gives an unnamed one.
func FuzzInput(f *testing.F) {
	f.Add([]byte(shop), []byte("kind: Service\nmetadata: {name: a}"))
	f.Add([]byte(""), []byte("---\n...\n%YAML 1.2\n"))
	f.Add([]byte("a: &a [*a]"), []byte("\x00\r\n"))
	f.Fuzz(func(t *testing.T, a, b []byte) {
		sources := []source{{"a", a}, {"b", b}}
		joined, first := join(sources)
		lines := bytes.SplitAfter(joined, []byte("\n"))
		for i, s := range sources {
			for n, line := range bytes.SplitAfter(s.data, []byte("\n")) {
				at := first[i] + n
				if name, back := locate(sources, first, at); len(line) > 0 && (name != s.name || back != n+1) {
					t.Fatalf("line %d of %s is found as %s:%d", n+1, s.name, name, back)
				}
				if len(line) > 0 && !bytes.HasPrefix(lines[at-1], line) {
					t.Fatalf("line %d of %s is %q in the joined input, was %q", n+1, s.name, lines[at-1], line)
				}
			}
			refs, err := refsOf(s, "default")
			for _, r := range refs {
				if err == nil && (r.GetKind() == "" || r.GetName() == "" || r.GetNamespace() == "") {
					t.Fatalf("reference %v", r)
				}
			}
		}
	})
}
