package spiffeid

import (
	"strings"
	"testing"
)

func TestParse(t *testing.T) {
	for _, tc := range []struct{ name, uri, wantErr string }{
		{"workload", "spiffe://shop.example/ns/default/sa/api", ""},
		{"no scheme", "shop.example/ns/default/sa/api", "scheme"},
		{"upper case trust domain", "spiffe://Shop/ns/default/sa/api", "trust domain"},
		{"another shape", "spiffe://shop.example/api", "not of the form"},
		{"a segment more", "spiffe://shop.example/ns/default/sa/api/x", "not of the form"},
		{"empty segment", "spiffe://shop.example/ns//sa/api", "segment"},
		{"dots", "spiffe://shop.example/ns/../sa/api", "segment"},
		{"query", "spiffe://shop.example/ns/default/sa/api?x=1", "path segment"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			id, err := Parse(tc.uri)
			if tc.wantErr == "" {
				if err != nil || id.String() != tc.uri {
					t.Fatalf("Parse(%q) = %v, %v", tc.uri, id, err)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), tc.wantErr) {
				t.Fatalf("Parse(%q): error %v, want one with %q", tc.uri, err, tc.wantErr)
			}
			if !id.IsZero() {
				t.Errorf("Parse(%q) gave %v beside its error", tc.uri, id)
			}
		})
	}
}

func TestNewNamesTheBadPart(t *testing.T) {
	for _, tc := range []struct{ td, ns, sa, want string }{
		{"", "default", "api", "trust domain"},
		{"shop", "", "api", "namespace"},
		{"shop", "default", "a/b", "service account"},
		{"shop", "default", "a b", "service account"},
	} {
		if _, err := New(tc.td, tc.ns, tc.sa); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("New(%q, %q, %q): error %v, want one that names the %s", tc.td, tc.ns, tc.sa, err, tc.want)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add("spiffe://shop.example/ns/default/sa/api")
	f.Add("spiffe://a/ns/b/sa/")
	f.Fuzz(func(t *testing.T, uri string) {
		id, err := Parse(uri)
		if err != nil {
			return
		}
		again, err := New(id.TrustDomain(), id.Namespace(), id.ServiceAccount())
		if err != nil || again != id {
			t.Fatalf("New(parts of %q) = %v, %v; want %v", uri, again, err, id)
		}
	})
}
