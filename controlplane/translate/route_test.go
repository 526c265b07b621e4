package translate

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/heddle-mesh/heddle/controlplane/mesh"
)

// FuzzEntries holds the order of matches to what it must be whatever the routes are: it
// is the same for any order of the routes that the tie-breaks do not tell apart, nothing
// less specific goes before, and among equals it is that of the routes.
func FuzzEntries(f *testing.F) {
	for seed := range uint64(20) {
		f.Add(seed, seed%2 == 0)
	}
	f.Fuzz(func(t *testing.T, seed uint64, grpc bool) {
		r := rand.New(rand.NewPCG(seed, 1))
		kind, rank := mesh.KindHTTPRoute, httpSpecificity
		if grpc {
			kind, rank = mesh.KindGRPCRoute, grpcSpecificity
		}
		var routes []*mesh.Route
		place := map[*mesh.Rule]int{}
		for i := range 1 + r.IntN(4) {
			route := &mesh.Route{Meta: mesh.Meta{Ref: mesh.Ref{Kind: kind, Name: mesh.Name{Namespace: "default", Name: fmt.Sprint("r", i)}}}}
			for range 1 + r.IntN(4) {
				route.Rules = append(route.Rules, mesh.Rule{Matches: randomMatches(r)})
			}
			routes = append(routes, route)
			for j := range route.Rules {
				place[&route.Rules[j]] = len(place)
			}
		}
		got := entries(routes)
		for i := range got {
			for j := i + 1; j < len(got); j++ {
				a, b := rank(got[i].match), rank(got[j].match)
				switch c := slices.Compare(a[:], b[:]); {
				case c < 0:
					t.Fatalf("%s %v stands before %s %v", got[i].name, a, got[j].name, b)
				case c == 0 && place[got[i].rule] > place[got[j].rule]:
					t.Fatalf("%s stands before %s, which is older", got[i].name, got[j].name)
				}
			}
		}
		// In another order of the routes only equals change places.
		r.Shuffle(len(routes), func(i, j int) { routes[i], routes[j] = routes[j], routes[i] })
		again := entries(routes)
		for i := range got {
			if rank(got[i].match) != rank(again[i].match) {
				t.Fatalf("position %d: %s, and %s when the routes come in another order", i, got[i].name, again[i].name)
			}
		}
		byName := func(a, b entry) int { return cmp.Compare(a.name, b.name) }
		slices.SortFunc(got, byName)
		slices.SortFunc(again, byName)
		if !slices.EqualFunc(got, again, func(a, b entry) bool { return a.name == b.name && a.rule == b.rule }) {
			t.Fatalf("entries depend on the order of the routes")
		}
	})
}

func randomMatches(r *rand.Rand) []mesh.Match {
	paths := []mesh.StringMatch{
		{}, {Kind: mesh.Prefix, Value: "/"}, {Kind: mesh.Prefix, Value: "/a"}, {Kind: mesh.Prefix, Value: "/a/"}, {Kind: mesh.Exact, Value: "/a"},
		{Kind: mesh.Exact, Value: "/a/b"}, {Kind: mesh.Regex, Value: "/[^/]+/(?:b)"}, {Kind: mesh.Regex, Value: "/(?:a)/[^/]+"},
	}
	var out []mesh.Match
	for range 1 + r.IntN(3) {
		out = append(out, mesh.Match{
			Path: paths[r.IntN(len(paths))], Method: []string{"", "GET"}[r.IntN(2)],
			Headers: make([]mesh.NamedMatch, r.IntN(3)), Query: make([]mesh.NamedMatch, r.IntN(3)),
		})
	}
	return out
}

// TestSpecificity has the matches of Gateway API's rules in their order.
func TestSpecificity(t *testing.T) {
	one, two := make([]mesh.NamedMatch, 1), make([]mesh.NamedMatch, 2)
	path := func(k mesh.MatchKind, v string) mesh.StringMatch { return mesh.StringMatch{Kind: k, Value: v} }
	for name, c := range map[string]struct {
		rank    func(mesh.Match) specificity
		ordered []mesh.Match
	}{
		"http": {httpSpecificity, []mesh.Match{
			{Path: path(mesh.Exact, "/long")},
			{Path: path(mesh.Exact, "/a"), Headers: two},
			{Path: path(mesh.Regex, "/.*")},
			{Path: path(mesh.Prefix, "/a/b")},
			{Path: path(mesh.Prefix, "/a"), Method: "GET"},
			{Path: path(mesh.Prefix, "/a"), Headers: two},
			{Path: path(mesh.Prefix, "/a"), Headers: one, Query: two},
			{Path: path(mesh.Prefix, "/a"), Query: two},
			{Path: path(mesh.Prefix, "/a"), Query: one},
			{Path: path(mesh.Prefix, "/a")},
			{Path: path(mesh.Prefix, "/"), Query: one},
			{Path: path(mesh.Prefix, "/")},
		}},
		"grpc": {grpcSpecificity, []mesh.Match{
			{Path: path(mesh.Exact, "/shop.Carts/Get")},
			{Path: path(mesh.Exact, "/shop.Cart/Add"), Headers: one},
			{Path: path(mesh.Regex, "/(?:shop.Cart)/(?:Add)")}, // as long as the exact one
			{Path: path(mesh.Exact, "/shop.Cart/Go")},
			{Path: path(mesh.Regex, "/(?:shop.Cart)/[^/]+"), Headers: one},
			{Path: path(mesh.Prefix, "/shop.Cart")},
			{Path: path(mesh.Regex, "/[^/]+/(?:Remove)")},
			{Path: path(mesh.Regex, "/[^/]+/(?:Add)")},
			{},
		}},
	} {
		for i := 1; i < len(c.ordered); i++ {
			a, b := c.rank(c.ordered[i-1]), c.rank(c.ordered[i])
			if slices.Compare(a[:], b[:]) <= 0 {
				t.Errorf("%s: %v %v is not before %v %v", name, c.ordered[i-1], a, c.ordered[i], b)
			}
		}
	}
	slash, none := mesh.Match{Path: path(mesh.Prefix, "/a/")}, mesh.Match{Path: path(mesh.Prefix, "/a")}
	if httpSpecificity(slash) != httpSpecificity(none) {
		t.Error("a slash at the end of a prefix counts")
	}
}

// TestRedirectPort is HTTPRequestRedirectFilter.port, for a service on 80 and on 8000.
func TestRedirectPort(t *testing.T) {
	for _, c := range []struct {
		scheme, host string
		port, came   uint16
		want         uint16 // 0 = Envoy leaves the request's, or says none with another host
	}{
		{came: 80, want: 0},
		{came: 8000, want: 0},
		{host: "h", came: 80, want: 0},
		{host: "h", came: 8000, want: 8000},
		{scheme: "http", came: 80, want: 0},
		{scheme: "http", came: 8000, want: 80},
		{scheme: "http", host: "h", came: 8000, want: 0},
		{scheme: "https", came: 80, want: 0},
		{scheme: "https", came: 8000, want: 443},
		{scheme: "https", host: "h", came: 8000, want: 0},
		{port: 80, host: "h", came: 8000, want: 0},
		{port: 80, came: 8000, want: 80},
		{port: 443, came: 80, want: 443},
		{scheme: "https", port: 443, host: "h", came: 80, want: 0},
		{scheme: "https", port: 80, host: "h", came: 80, want: 80},
		{port: 9000, came: 80, want: 9000},
	} {
		if got := redirectPort(&mesh.Redirect{Scheme: c.scheme, Host: c.host, Port: c.port}, c.came); got != c.want {
			t.Errorf("%+v: %d", c, got)
		}
	}
}

// TestEqualInputsMakeEqualBytes is what lets the pipeline skip what has not changed.
func TestEqualInputsMakeEqualBytes(t *testing.T) {
	for seed := range uint64(50) {
		in := func() RoutesIn {
			r := rand.New(rand.NewPCG(seed, 2))
			route := &mesh.Route{Meta: mesh.Meta{Ref: mesh.Ref{Kind: mesh.KindHTTPRoute, Name: mesh.Name{Namespace: "default", Name: "r"}}}}
			for range 5 {
				route.Rules = append(route.Rules, mesh.Rule{Matches: randomMatches(r)})
			}
			return RoutesIn{Service: mesh.Name{Namespace: "default", Name: "s"}, Port: 80, Attached: &Attached{Routes: []*mesh.Route{route}}}
		}
		encode := proto.MarshalOptions{Deterministic: true}.Marshal
		a, errA := encode(Routes(in()))
		b, errB := encode(Routes(in()))
		if errA != nil || errB != nil || string(a) != string(b) {
			t.Fatalf("seed %d: %v, %v, or not the same", seed, errA, errB)
		}
	}
}
