package translate

import (
	"fmt"
	"math/rand/v2"
	"regexp"
	"slices"
	"strings"
	"testing"

	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"

	"github.com/heddle-mesh/heddle/controlplane/mesh"
	"github.com/heddle-mesh/heddle/identity/spiffeid"
)

// admits reports whether a handshake that takes what access admits takes an identity.
func admits(t *testing.T, access Access, id spiffeid.ID) bool {
	t.Helper()
	return matches(t, access.admitted(domain), id.String())
}

// matches reports whether one of the matchers takes s; Go's regexp has RE2's syntax.
func matches(t *testing.T, matchers []*matcherv3.StringMatcher, s string) bool {
	t.Helper()
	return slices.ContainsFunc(matchers, func(m *matcherv3.StringMatcher) bool {
		switch p := m.MatchPattern.(type) {
		case *matcherv3.StringMatcher_Exact:
			return p.Exact == s
		case *matcherv3.StringMatcher_Prefix:
			return strings.HasPrefix(s, p.Prefix)
		case *matcherv3.StringMatcher_SafeRegex:
			re, err := regexp.Compile("^(?:" + p.SafeRegex.Regex + ")$")
			if err != nil {
				t.Fatal(err)
			}
			return re.MatchString(s)
		}
		t.Fatalf("unexpected matcher %v", m)
		return false
	})
}

// TestComplement takes all strings of up to four letters out of an alphabet and compares.
func TestComplement(t *testing.T) {
	const letters = "ab/-"
	all := []string{""}
	for start, length := 0, 0; length < 4; length++ {
		end := len(all)
		for _, s := range all[start:end] {
			for _, c := range letters {
				all = append(all, s+string(c))
			}
		}
		start = end
	}
	random := rand.New(rand.NewPCG(1, 1))
	for range 300 {
		var words []string
		for range random.IntN(6) {
			words = append(words, all[random.IntN(len(all))])
		}
		words = slices.DeleteFunc(words, func(w string) bool { // as exceptions are: no repetition, nothing below a prefix
			return slices.ContainsFunc(words, func(p string) bool {
				return strings.HasSuffix(p, "/") && strings.HasPrefix(w, p) && w != p
			})
		})
		re := regexp.MustCompile("^" + complement(words) + "$")
		for _, s := range all {
			excepted := slices.ContainsFunc(words, func(w string) bool {
				return w == s || strings.HasSuffix(w, "/") && strings.HasPrefix(s, w)
			})
			if re.MatchString(s) == excepted {
				t.Fatalf("%q excepted from %q: %v", s, words, excepted)
			}
		}
	}
}

// TestManyDenied denies more callers than one expression may name.
func TestManyDenied(t *testing.T) {
	access := manyDenied(t, 300)
	if n := len(access.admitted(domain)); n < 2 {
		t.Fatalf("%d matchers", n)
	}
	for i := range 300 {
		for name, want := range map[string]bool{fmt.Sprint("job-", i): false, fmt.Sprint("job-", i, "x"): true, fmt.Sprint("jo", i): true} {
			if got := admits(t, access, identity(t, "default", name)); got != want {
				t.Fatalf("%s: %v", name, got)
			}
		}
	}
	for _, m := range access.admitted(domain) {
		if n := len(m.GetSafeRegex().GetRegex()); n > 100*maxExcepted {
			t.Errorf("an expression of %d bytes", n)
		}
	}
}

func manyDenied(t testing.TB, n int) Access {
	t.Helper()
	var rule mesh.AuthorizationRule
	for i := range n {
		rule.From = append(rule.From, mesh.Caller{Identity: identity(t, "default", fmt.Sprint("job-", i))})
	}
	return NewAccess(domain, []*mesh.AuthorizationPolicy{authorization("d", true, rule)},
		[]Backend{{mesh.Name{Namespace: "default", Name: "api"}, 80}})
}
