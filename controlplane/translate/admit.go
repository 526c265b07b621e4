package translate

import (
	"regexp"
	"slices"
	"strings"

	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
)

// admitted are the callers whose handshake succeeds at a port that does not speak HTTP.
// Envoy's RBAC filter decides on a caller's first byte, when a program that speaks first
// has spoken to anybody; so nobody else gets through the handshake.
//
// A handshake can only say who may come: a list of names, prefixes and regular
// expressions. "All but these" becomes expressions for every other name.
func (a Access) admitted(trustDomain string) []*matcherv3.StringMatcher {
	var out []*matcherv3.StringMatcher
	region := func(v Verdict, within bool) {
		if v.Allow && !within {
			out = append(out, allBut(v.Key, a.exceptions(v.Key))...)
		}
	}
	everybody := a.Default
	everybody.Key = "spiffe://" + trustDomain + "/ns/"
	region(everybody, false)
	for _, v := range a.Namespaces {
		region(v, a.Default.Allow)
	}
	for _, v := range a.Identities {
		if v.Allow && !a.around(v) {
			out = append(out, exactMatch(v.Key))
		}
	}
	if len(out) == 0 { // no matcher at all would admit everybody
		out = append(out, exactMatch("nobody"))
	}
	return out
}

// around is the verdict on the rest of what a verdict is an exception from: an
// identity's namespace, or everybody.
func (a Access) around(v Verdict) bool {
	namespace := parentKey(v.Key)
	for _, n := range a.Namespaces {
		if n.Key == namespace {
			return n.Allow
		}
	}
	return a.Default.Allow
}

// exceptions lists what is denied directly below an allowed prefix, relative to it: names,
// and prefixes, which end in a slash.
func (a Access) exceptions(prefix string) []string {
	var out []string
	add := func(v Verdict, around bool) {
		if rest, below := strings.CutPrefix(v.Key, prefix); below && rest != "" && !v.Allow && around {
			out = append(out, rest)
		}
	}
	for _, v := range a.Namespaces {
		add(v, a.Default.Allow)
	}
	for _, v := range a.Identities {
		add(v, a.around(v))
	}
	return out
}

// maxExcepted bounds the letters of the exceptions in one expression: each becomes about
// 20 instructions of RE2, of which the proxies' bootstrap allows 10,000.
const maxExcepted = 400

// allBut matches every name below a prefix other than the exceptions. Where these are too
// many for one expression, each first letter gets its own.
func allBut(prefix string, exceptions []string) []*matcherv3.StringMatcher {
	if len(exceptions) == 0 {
		return []*matcherv3.StringMatcher{prefixMatch(prefix)}
	}
	if len(strings.Join(exceptions, "")) <= maxExcepted {
		return []*matcherv3.StringMatcher{regexMatch(regexp.QuoteMeta(prefix) + complement(exceptions))}
	}
	branches := byFirst(exceptions)
	out := []*matcherv3.StringMatcher{regexMatch(regexp.QuoteMeta(prefix) + otherThan(branches) + anything)}
	if !slices.Contains(exceptions, "") {
		out = append(out, exactMatch(prefix))
	}
	for _, b := range branches {
		if !b.all() {
			out = append(out, allBut(prefix+string(b.first), b.rests)...)
		}
	}
	return out
}

// anything is what may follow in a SPIFFE ID (SPIFFE-ID standard, section 2.2).
const anything = `[--9A-Z_a-z]*`

// complement is the expression of all strings other than some words. A word that ends in a
// slash stands for everything that starts with it. It walks the tree of the words letter by
// letter: a string is another one if it ends before a word does, or goes on where none does.
func complement(words []string) string {
	var or []string
	if !slices.Contains(words, "") {
		or = append(or, "")
	}
	branches := byFirst(words)
	for _, b := range branches {
		if !b.all() {
			or = append(or, regexp.QuoteMeta(string(b.first))+complement(b.rests))
		}
	}
	or = append(or, otherThan(branches)+anything)
	return "(?:" + strings.Join(or, "|") + ")"
}

// otherThan is the class of the letters of a SPIFFE ID that no branch starts with.
func otherThan(branches []branch) string {
	class := "["
	for _, r := range []struct{ from, to byte }{{'-', '9'}, {'A', 'Z'}, {'_', '_'}, {'a', 'z'}} {
		from := r.from
		for _, b := range branches { // in order
			if from <= b.first && b.first <= r.to {
				class += letters(from, b.first-1)
				from = b.first + 1
			}
		}
		class += letters(from, r.to)
	}
	return class + "]"
}

// letters is a range in a class.
func letters(from, to byte) string {
	switch {
	case from > to:
		return ""
	case from == to:
		return regexp.QuoteMeta(string(from))
	}
	return regexp.QuoteMeta(string(from)) + "-" + regexp.QuoteMeta(string(to))
}

// branch holds the words that start with one letter, without it.
type branch struct {
	first byte
	rests []string
}

// all reports whether everything in the branch is excepted.
func (b branch) all() bool { return b.first == '/' && slices.Contains(b.rests, "") }

// byFirst sorts words, but for the empty one, into branches.
func byFirst(words []string) []branch {
	var out []branch
	for _, w := range slices.Sorted(slices.Values(words)) {
		switch {
		case w == "":
		case len(out) > 0 && out[len(out)-1].first == w[0]:
			last := &out[len(out)-1]
			last.rests = append(last.rests, w[1:])
		default:
			out = append(out, branch{w[0], []string{w[1:]}})
		}
	}
	return out
}
