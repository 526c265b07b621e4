package main

import (
	"encoding/json"
	"strings"
	"testing"
)

// TestCA shows the roots of a real authority, and begins a rotation, once.
func TestCA(t *testing.T) {
	p := newPlane(t)
	roots := func() []rootItem {
		t.Helper()
		var list struct{ Items []rootItem }
		fatal(t, json.Unmarshal([]byte(p.ok("", "ca", "show", "-o", "json")), &list))
		return list.Items
	}
	before := roots()
	if len(before) != 1 || before[0].Role != "signing" || before[0].Due != nil || len(before[0].Fingerprint) != 64 {
		t.Fatalf("before: %+v", before)
	}
	said := strings.Split(p.ok("", "ca", "rotate"), "\n")
	after := roots()
	if len(after) != 2 || after[0].Fingerprint != before[0].Fingerprint || after[0].Due != nil || after[1].Role != "prepared" || after[1].Due == nil {
		t.Fatalf("after: %+v", after)
	}
	for i, want := range []string{"ROOT ROLE EXPIRES NEXT", after[0].Fingerprint[:16] + " signing ", after[1].Fingerprint[:16] + " prepared "} {
		if line := strings.Join(strings.Fields(said[i]), " "); !strings.HasPrefix(line, want) || i == 2 && !strings.Contains(line, "signs from ") {
			t.Errorf("line %d: %q, want %q", i+1, line, want)
		}
	}
	if code, _, stderr := p.heddle("", "ca", "rotate"); code != exitFailure || !strings.Contains(stderr, "a rotation is under way already; heddle ca show says how far it is") {
		t.Errorf("once more: %d, %s", code, stderr)
	}
}
