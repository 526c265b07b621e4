package translate

import (
	"slices"
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"

	"github.com/heddle-mesh/heddle/controlplane/mesh"
)

func routeMatch(m mesh.Match) *routev3.RouteMatch {
	out := pathMatch(m.Path)
	if m.Method != "" {
		out.Headers = append(out.Headers, headerMatch(mesh.NamedMatch{
			Name:        ":method",
			StringMatch: mesh.StringMatch{Kind: mesh.Exact, Value: m.Method},
		}))
	}
	for _, h := range m.Headers {
		out.Headers = append(out.Headers, headerMatch(h))
	}
	for _, q := range m.Query {
		out.QueryParameters = append(out.QueryParameters, &routev3.QueryParameterMatcher{
			Name:                         q.Name,
			QueryParameterMatchSpecifier: &routev3.QueryParameterMatcher_StringMatch{StringMatch: stringMatch(q.StringMatch)},
		})
	}
	return out
}

// pathMatch compares whole segments for a prefix: /shop matches /shop and /shop/cart but
// not /shopping, and a slash at its end means nothing (Gateway API, PathMatchType).
func pathMatch(p mesh.StringMatch) *routev3.RouteMatch {
	switch prefix := strings.TrimRight(p.Value, "/"); {
	case p.Kind == mesh.Exact:
		return &routev3.RouteMatch{PathSpecifier: &routev3.RouteMatch_Path{Path: p.Value}}
	case p.Kind == mesh.Regex:
		return &routev3.RouteMatch{PathSpecifier: &routev3.RouteMatch_SafeRegex{SafeRegex: regex(p.Value)}}
	case p.Kind == mesh.Prefix && prefix != "":
		return &routev3.RouteMatch{PathSpecifier: &routev3.RouteMatch_PathSeparatedPrefix{PathSeparatedPrefix: prefix}}
	}
	return &routev3.RouteMatch{PathSpecifier: &routev3.RouteMatch_Prefix{Prefix: "/"}}
}

func headerMatch(h mesh.NamedMatch) *routev3.HeaderMatcher {
	return &routev3.HeaderMatcher{
		Name:                 strings.ToLower(h.Name),
		HeaderMatchSpecifier: &routev3.HeaderMatcher_StringMatch{StringMatch: stringMatch(h.StringMatch)},
	}
}

func stringMatch(s mesh.StringMatch) *matcherv3.StringMatcher {
	if s.Kind == mesh.Regex {
		return &matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_SafeRegex{SafeRegex: regex(s.Value)}}
	}
	return &matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_Exact{Exact: s.Value}}
}

func regex(expr string) *matcherv3.RegexMatcher { return &matcherv3.RegexMatcher{Regex: expr} }

// headers points at the four header lists of a route or a weighted cluster.
type headers struct {
	requestAdd     *[]*corev3.HeaderValueOption
	requestRemove  *[]string
	responseAdd    *[]*corev3.HeaderValueOption
	responseRemove *[]string
}

func applyHeaders(filters []mesh.Filter, to *headers) {
	for _, f := range filters {
		changeHeaders(f.RequestHeaders, to.requestAdd, to.requestRemove)
		changeHeaders(f.ResponseHeaders, to.responseAdd, to.responseRemove)
	}
}

// changeHeaders adds one filter's changes to those before it. Envoy removes first and adds
// then, so that a removal has to take back what was added before.
func changeHeaders(c *mesh.HeaderChange, add *[]*corev3.HeaderValueOption, remove *[]string) {
	if c == nil {
		return
	}
	for _, h := range c.Set {
		*add = append(*add, headerValue(h, corev3.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD))
	}
	for _, h := range c.Add {
		*add = append(*add, headerValue(h, corev3.HeaderValueOption_APPEND_IF_EXISTS_OR_ADD))
	}
	for _, name := range c.Remove {
		*add = slices.DeleteFunc(*add, func(o *corev3.HeaderValueOption) bool { return strings.EqualFold(o.Header.Key, name) })
		*remove = append(*remove, name)
	}
}

func headerValue(h mesh.Header, how corev3.HeaderValueOption_HeaderAppendAction) *corev3.HeaderValueOption {
	return &corev3.HeaderValueOption{
		// A percent sign starts a format in Envoy; here a value is only itself.
		Header:       &corev3.HeaderValue{Key: h.Name, Value: strings.ReplaceAll(h.Value, "%", "%%")},
		AppendAction: how,
	}
}
