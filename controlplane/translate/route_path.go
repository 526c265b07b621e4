package translate

import (
	"cmp"
	"regexp"
	"strings"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"

	"github.com/heddle-mesh/heddle/controlplane/mesh"
)

var redirectCodes = map[int]routev3.RedirectAction_RedirectResponseCode{
	301: routev3.RedirectAction_MOVED_PERMANENTLY,
	302: routev3.RedirectAction_FOUND,
	303: routev3.RedirectAction_SEE_OTHER,
	307: routev3.RedirectAction_TEMPORARY_REDIRECT,
	308: routev3.RedirectAction_PERMANENT_REDIRECT,
}

// redirect makes the answer to what came to a port of a service.
func redirect(r *mesh.Redirect, m mesh.Match, port uint16) *routev3.RedirectAction {
	out := &routev3.RedirectAction{
		HostRedirect: r.Host,
		PortRedirect: uint32(redirectPort(r, port)),
		ResponseCode: redirectCodes[r.Code],
	}
	if r.Scheme != "" {
		out.SchemeRewriteSpecifier = &routev3.RedirectAction_SchemeRedirect{SchemeRedirect: r.Scheme}
	}
	switch {
	case r.Path.Full != nil:
		out.PathRewriteSpecifier = &routev3.RedirectAction_PathRedirect{PathRedirect: cmp.Or(*r.Path.Full, "/")}
	case r.Path.Prefix != nil:
		if rx := emptyingPrefix(*r.Path.Prefix, m); rx != nil {
			out.PathRewriteSpecifier = &routev3.RedirectAction_RegexRewrite{RegexRewrite: rx}
		} else {
			out.PathRewriteSpecifier = &routev3.RedirectAction_PrefixRewrite{PrefixRewrite: newPrefix(*r.Path.Prefix, m)}
		}
	}
	return out
}

// redirectPort is the port to put in a Location, or 0 for that of the request's Host. By
// HTTPRequestRedirectFilter.port it is the given one, else the scheme's, else the one
// that the request came to; and one that goes without saying is not said, unless Envoy
// would leave another one in its place.
func redirectPort(r *mesh.Redirect, came uint16) uint16 {
	wellKnown := map[string]uint16{"": 80, "http": 80, "https": 443}[r.Scheme]
	port := r.Port
	switch {
	case port != 0:
	case r.Scheme != "":
		port = wellKnown
	case r.Host == "":
		return 0
	default:
		port = came
	}
	if port == wellKnown && (r.Host != "" || came == 80) {
		return 0
	}
	return port
}

func rewrite(action *routev3.RouteAction, r *mesh.Rewrite, m mesh.Match) {
	if r.Host != "" {
		action.HostRewriteSpecifier = &routev3.RouteAction_HostRewriteLiteral{HostRewriteLiteral: r.Host}
	}
	if r.Path == (mesh.PathChange{}) {
		return
	}
	action.RegexRewrite, action.PrefixRewrite = nil, "" // of a filter before
	switch {
	case r.Path.Full != nil:
		action.RegexRewrite = &matcherv3.RegexMatchAndSubstitute{
			Pattern:      regex(`^[^?]*`), // the query stays
			Substitution: escapeSubstitution(cmp.Or(*r.Path.Full, "/")),
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
