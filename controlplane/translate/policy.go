package translate

import (
	"cmp"
	"slices"
	"strings"

	xdscorev3 "github.com/cncf/xds/go/xds/core/v3"
	xdsmatcherv3 "github.com/cncf/xds/go/xds/type/matcher/v3"
	rbacconfigv3 "github.com/envoyproxy/go-control-plane/envoy/config/rbac/v3"
	httprbacv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/rbac/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	sslv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/matching/common_inputs/ssl/v3"

	"github.com/heddle-mesh/heddle/controlplane/mesh"
)

// Access is who may reach a port, decided for every identity ahead of time: a look-up
// by the caller's identity, then by its namespace, then the default. Its cost does not
// grow with the number of policies.
type Access struct {
	// Identities and Namespaces are SPIFFE IDs and "spiffe://TD/ns/NS/" prefixes.
	Identities, Namespaces []Verdict
	Default                Verdict
}

// Verdict is allow or deny for one Key, and the policy that said so.
type Verdict struct {
	Key    string
	Allow  bool
	Policy string // "" where no policy did: the mesh's default
}

// NewAccess weighs policies for one port of a workload, which the given ports of services
// lead to. A policy counts where it targets one of these services, and its rules' ports are
// those of the services it targets. Denials go before allowances; where somebody is
// allowed, all others are not; see mesh.AuthorizationPolicy.
func NewAccess(trustDomain string, policies []*mesh.AuthorizationPolicy, reached []Backend) Access {
	allow, deny := callers{}, callers{}
	restricted := ""
	for _, p := range policies {
		ports := targeted(p, reached)
		if len(ports) == 0 {
			continue
		}
		if !p.Deny {
			restricted = cmp.Or(restricted, p.Ref.String())
		}
		for _, r := range p.Rules {
			if len(r.Ports) > 0 && !slices.ContainsFunc(r.Ports, func(n uint16) bool { return slices.Contains(ports, n) }) {
				continue
			}
			if p.Deny {
				deny.add(trustDomain, r, p.Ref.String())
			} else {
				allow.add(trustDomain, r, p.Ref.String())
			}
		}
	}
	return combine(allow, deny, restricted)
}

// targeted are the numbers of the ports that a policy is about.
func targeted(p *mesh.AuthorizationPolicy, reached []Backend) []uint16 {
	var out []uint16
	for _, b := range reached {
		if len(p.Targets) == 0 || slices.Contains(p.Targets, b.Service) {
			out = append(out, b.Port)
		}
	}
	return out
}

// callers maps an identity, a namespace prefix or "" (anybody) to the policy that names it.
type callers map[string]string

func (c callers) add(trustDomain string, r mesh.AuthorizationRule, policy string) {
	if len(r.From) == 0 {
		c.put("", policy)
	}
	for _, from := range r.From {
		if from.Namespace != "" {
			c.put("spiffe://"+trustDomain+"/ns/"+from.Namespace+"/", policy)
		} else {
			c.put(from.Identity.String(), policy)
		}
	}
}

func (c callers) put(key, policy string) {
	if _, ok := c[key]; !ok {
		c[key] = policy
	}
}

// find gives the policy that names an identity, its namespace or anybody.
func (c callers) find(key string) (string, bool) {
	for {
		if policy, ok := c[key]; ok {
			return policy, true
		}
		if key == "" {
			return "", false
		}
		key = parentKey(key)
	}
}

// parentKey leads from an identity to its namespace's prefix, and from there to "".
func parentKey(key string) string {
	if i := strings.LastIndex(key, "/sa/"); i >= 0 {
		return key[:i+1]
	}
	return ""
}

func combine(allow, deny callers, restricted string) Access {
	verdict := func(key string) Verdict {
		if policy, ok := deny.find(key); ok {
			return Verdict{key, false, policy}
		}
		if policy, ok := allow.find(key); ok {
			return Verdict{key, true, policy}
		}
		return Verdict{key, restricted == "", restricted}
	}
	access := Access{Default: verdict("")}
	keys := map[string]bool{}
	for _, c := range []callers{allow, deny} {
		for key := range c {
			keys[key] = true
		}
	}
	for key := range keys {
		switch {
		case strings.Contains(key, "/sa/"):
			access.Identities = append(access.Identities, verdict(key))
		case key != "":
			access.Namespaces = append(access.Namespaces, verdict(key))
		}
	}
	byKey := func(a, b Verdict) int { return cmp.Compare(a.Key, b.Key) }
	slices.SortFunc(access.Identities, byKey)
	slices.SortFunc(access.Namespaces, byKey)
	return access
}

// open reports whether the access lets everybody of the mesh in, so that no filter is needed.
func (a Access) open() bool {
	return a.Default.Allow && len(a.Identities) == 0 && len(a.Namespaces) == 0
}

const accessFilterName = "envoy.filters.http.rbac"

// accessFilter refuses everybody whom the routes do not let in; see routeAccess.
func accessFilter() *hcmv3.HttpFilter {
	nobody := Access{Default: Verdict{Policy: "no routes"}}
	return httpFilter(accessFilterName, message(&httprbacv3.RBAC{Matcher: matcher(nobody)}))
}

// routeAccess is what takes the place of accessFilter's decision for requests on a route.
func routeAccess(a Access) *httprbacv3.RBACPerRoute {
	if a.open() {
		return &httprbacv3.RBACPerRoute{} // no check at all
	}
	return &httprbacv3.RBACPerRoute{Rbac: &httprbacv3.RBAC{Matcher: matcher(a)}}
}

// matcher is the look-up as Envoy's unified matcher: identity, else namespace, else default.
func matcher(a Access) *xdsmatcherv3.Matcher {
	m := &xdsmatcherv3.Matcher{OnNoMatch: onMatch(a.Default)}
	if len(a.Namespaces) > 0 {
		m = tree(a.Namespaces, m.OnNoMatch, false)
	}
	if len(a.Identities) > 0 {
		next := m.OnNoMatch
		if m.MatcherType != nil {
			next = &xdsmatcherv3.Matcher_OnMatch{OnMatch: &xdsmatcherv3.Matcher_OnMatch_Matcher{Matcher: m}}
		}
		m = tree(a.Identities, next, true)
	}
	return m
}

func tree(verdicts []Verdict, otherwise *xdsmatcherv3.Matcher_OnMatch, exact bool) *xdsmatcherv3.Matcher {
	table := &xdsmatcherv3.Matcher_MatcherTree_MatchMap{Map: map[string]*xdsmatcherv3.Matcher_OnMatch{}}
	for _, v := range verdicts {
		table.Map[v.Key] = onMatch(v)
	}
	t := &xdsmatcherv3.Matcher_MatcherTree{
		// An SVID has exactly one URI SAN (X509-SVID standard, section 2), so the list is the ID.
		Input: &xdscorev3.TypedExtensionConfig{Name: "identity", TypedConfig: message(&sslv3.UriSanInput{})},
	}
	if exact {
		t.TreeType = &xdsmatcherv3.Matcher_MatcherTree_ExactMatchMap{ExactMatchMap: table}
	} else {
		t.TreeType = &xdsmatcherv3.Matcher_MatcherTree_PrefixMatchMap{PrefixMatchMap: table}
	}
	return &xdsmatcherv3.Matcher{
		MatcherType: &xdsmatcherv3.Matcher_MatcherTree_{MatcherTree: t},
		OnNoMatch:   otherwise,
	}
}

func onMatch(v Verdict) *xdsmatcherv3.Matcher_OnMatch {
	action := &rbacconfigv3.Action{Name: cmp.Or(v.Policy, "default"), Action: rbacconfigv3.RBAC_DENY}
	if v.Allow {
		action.Action = rbacconfigv3.RBAC_ALLOW
	}
	return &xdsmatcherv3.Matcher_OnMatch{OnMatch: &xdsmatcherv3.Matcher_OnMatch_Action{
		Action: &xdscorev3.TypedExtensionConfig{Name: "envoy.filters.rbac.action", TypedConfig: message(action)},
	}}
}
