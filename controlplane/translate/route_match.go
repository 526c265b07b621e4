package translate

import (
	"regexp"
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	previoushostsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/retry/host/previous_hosts/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	"google.golang.org/protobuf/types/known/anypb"

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

func redirect(r *mesh.Redirect, m mesh.Match) *routev3.RedirectAction {
	out := &routev3.RedirectAction{HostRedirect: r.Host, PortRedirect: uint32(r.Port)}
	if r.Scheme != "" {
		out.SchemeRewriteSpecifier = &routev3.RedirectAction_SchemeRedirect{SchemeRedirect: r.Scheme}
	}
	out.ResponseCode = map[int]routev3.RedirectAction_RedirectResponseCode{
		301: routev3.RedirectAction_MOVED_PERMANENTLY,
		302: routev3.RedirectAction_FOUND,
		303: routev3.RedirectAction_SEE_OTHER,
		307: routev3.RedirectAction_TEMPORARY_REDIRECT,
		308: routev3.RedirectAction_PERMANENT_REDIRECT,
	}[r.Code]
	switch {
	case r.Path.Full != nil:
		out.PathRewriteSpecifier = &routev3.RedirectAction_PathRedirect{PathRedirect: *r.Path.Full}
	case r.Path.Prefix != nil:
		if rx := emptyingPrefix(*r.Path.Prefix, m); rx != nil {
			out.PathRewriteSpecifier = &routev3.RedirectAction_RegexRewrite{RegexRewrite: rx}
		} else {
			out.PathRewriteSpecifier = &routev3.RedirectAction_PrefixRewrite{PrefixRewrite: newPrefix(*r.Path.Prefix, m)}
		}
	}
	return out
}

func rewrite(action *routev3.RouteAction, r *mesh.Rewrite, m mesh.Match) {
	if r.Host != "" {
		action.HostRewriteSpecifier = &routev3.RouteAction_HostRewriteLiteral{HostRewriteLiteral: r.Host}
	}
	switch {
	case r.Path.Full != nil:
		action.RegexRewrite = &matcherv3.RegexMatchAndSubstitute{
			Pattern:      regex(`^[^?]*`), // the query stays
			Substitution: escapeSubstitution(*r.Path.Full),
		}
	case r.Path.Prefix != nil:
		if rx := emptyingPrefix(*r.Path.Prefix, m); rx != nil {
			action.RegexRewrite = rx
		} else {
			action.PrefixRewrite = newPrefix(*r.Path.Prefix, m)
		}
	}
}

// emptyingPrefix handles the replacement of a prefix by nothing: /shop/cart becomes
// /cart and /shop becomes /, where a plain exchange of the prefix would leave // or "".
func emptyingPrefix(replacement string, m mesh.Match) *matcherv3.RegexMatchAndSubstitute {
	matched := strings.TrimRight(m.Path.Value, "/")
	if strings.Trim(replacement, "/") != "" || matched == "" {
		return nil
	}
	return &matcherv3.RegexMatchAndSubstitute{
		Pattern:      regex("^" + regexp.QuoteMeta(matched) + "/*"),
		Substitution: "/",
	}
}

// newPrefix is the replacement as Envoy wants it, which exchanges exactly the characters
// that matched: "/" where the match was of everything, whole segments else.
func newPrefix(replacement string, m mesh.Match) string {
	trimmed := strings.TrimRight(replacement, "/")
	if strings.Trim(m.Path.Value, "/") == "" {
		return trimmed + "/"
	}
	return trimmed
}

// escapeSubstitution keeps RE2's \1 from being read in a literal path.
func escapeSubstitution(s string) string { return strings.ReplaceAll(s, `\`, `\\`) }

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
	*remove = append(*remove, c.Remove...)
}

func headerValue(h mesh.Header, how corev3.HeaderValueOption_HeaderAppendAction) *corev3.HeaderValueOption {
	return &corev3.HeaderValueOption{
		// A percent sign starts a format in Envoy; here a value is only itself.
		Header:       &corev3.HeaderValue{Key: h.Name, Value: strings.ReplaceAll(h.Value, "%", "%%")},
		AppendAction: how,
	}
}

func previousHosts() *anypb.Any { return message(&previoushostsv3.PreviousHostsPredicate{}) }
