package translate

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/heddle-mesh/heddle/controlplane/mesh"
)

// entry is one match of one rule: Envoy's unit of routing.
type entry struct {
	name  string
	match mesh.Match
	rule  *mesh.Rule
}

// entries lists the matches of routes of one kind, the most specific first. Among equals
// the order is that of the routes, which come oldest first and then by name, and within a
// route that of its rules (HTTPRouteRule.matches, GRPCRouteRule.matches).
func entries(routes []*mesh.Route) []entry {
	type ranked struct {
		entry
		rank specificity
	}
	var all []ranked
	for _, r := range routes {
		rank := httpSpecificity
		if r.Kind == mesh.KindGRPCRoute {
			rank = grpcSpecificity
		}
		for i := range r.Rules {
			rule := &r.Rules[i]
			label := cmp.Or(rule.Name, fmt.Sprint(i))
			for j, m := range rule.Matches {
				all = append(all, ranked{entry{fmt.Sprintf("%s/%s/%s/%d", r.Kind, r.Name, label, j), m, rule}, rank(m)})
			}
		}
	}
	slices.SortStableFunc(all, func(a, b ranked) int { return slices.Compare(b.rank[:], a.rank[:]) })
	var out []entry
	for _, r := range all {
		out = append(out, r.entry)
	}
	return out
}

// specificity is what decides which of two matches goes first: the greater one.
type specificity [5]int

// httpSpecificity is HTTPRouteRule.matches: an exact path, the longest path, a method, the
// most headers, the most query parameters. Gateway API leaves open where a regular
// expression stands; here it is between exact and prefix. A slash at the end of a prefix
// means nothing, so it does not count.
func httpSpecificity(m mesh.Match) specificity {
	s := specificity{2, len(m.Path.Value), min(1, len(m.Method)), len(m.Headers), len(m.Query)}
	switch m.Path.Kind {
	case mesh.Exact:
	case mesh.Regex:
		s[0] = 1
	default:
		s[0], s[1] = 0, len(strings.TrimRight(m.Path.Value, "/"))
	}
	return s
}

// grpcSpecificity is GRPCRouteRule.matches: the most characters in the service, the most
// in the method, the most headers. The path is as package discovery/manifest writes it:
// /SERVICE/METHOD, of a regular expression /(?:SERVICE)/(?:METHOD), with [^/]+ for what
// is left open.
func grpcSpecificity(m mesh.Match) specificity {
	service, method := strings.TrimPrefix(m.Path.Value, "/"), ""
	if rest, ok := strings.CutPrefix(service, anySegment+"/"); ok {
		service, method = "", rest
	} else if rest, ok := strings.CutSuffix(service, "/"+anySegment); ok {
		service = rest
	} else {
		service, method, _ = strings.Cut(service, "/")
	}
	return specificity{characters(service), characters(method), len(m.Headers)}
}

const anySegment = "[^/]+"

// characters counts what the user wrote of a part of a path.
func characters(part string) int {
	return len(strings.TrimSuffix(strings.TrimPrefix(part, "(?:"), ")"))
}
