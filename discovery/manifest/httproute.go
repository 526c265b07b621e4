package manifest

import (
	"regexp"
	"strings"

	"github.com/heddle-mesh/heddle/controlplane/mesh"
)

// The limits and rules of Gateway API v1 are those of its CRDs (gateway-api,
// apis/v1/httproute_types.go: kubebuilder markers and CEL rules).
type httpRouteSpec struct {
	ParentRefs []parentRef `json:"parentRefs" need:"a service to attach to" min:"1" max:"32"`
	Rules      []httpRule  `json:"rules,omitempty" max:"16"`

	Hostnames unsupported `json:"-" field:"hostnames" unsupported:"a route of the mesh attaches to a service, whatever it is called; remove it"`
}

type httpRule struct {
	Name        string       `json:"name,omitempty" is:"subdomain"`
	Matches     []httpMatch  `json:"matches,omitempty" max:"64"`
	Filters     []filter     `json:"filters,omitempty" max:"16"`
	BackendRefs []backendRef `json:"backendRefs,omitempty" max:"16"`
	Timeouts    *timeouts    `json:"timeouts,omitempty"`
	Retry       *retry       `json:"retry,omitempty"`

	SessionPersistence unsupported `json:"-" field:"sessionPersistence" unsupported:"remove it"`
}

type httpMatch struct {
	Path        *pathMatch   `json:"path,omitempty"`
	Method      string       `json:"method,omitempty" in:"GET|HEAD|POST|PUT|DELETE|CONNECT|OPTIONS|TRACE|PATCH"`
	Headers     []valueMatch `json:"headers,omitempty" max:"16"`
	QueryParams []valueMatch `json:"queryParams,omitempty" max:"16"`
}

type pathMatch struct {
	Type  string `json:"type,omitempty" in:"Exact|PathPrefix|RegularExpression"`
	Value string `json:"value,omitempty" max:"1024"`
}

// valueMatch is a match of a header or a query parameter.
type valueMatch struct {
	Type  string `json:"type,omitempty" in:"Exact|RegularExpression"`
	Name  string `json:"name" need:"a name" is:"header"`
	Value string `json:"value" need:"a value" min:"1"`
}

type timeouts struct {
	Request        string `json:"request,omitempty" is:"duration"`
	BackendRequest string `json:"backendRequest,omitempty" is:"duration"`
}

type retry struct {
	Codes    []int  `json:"codes,omitempty" max:"64" eachMin:"400" eachMax:"599"`
	Attempts *int   `json:"attempts,omitempty" min:"0" max:"1000"`
	Backoff  string `json:"backoff,omitempty" is:"duration"`
}

func (v *valueMatch) check(c cursor) { checkRegex(c.at("value"), v.Type, v.Value) }

func checkRegex(c cursor, kind, value string) {
	if kind == string(mesh.Regex) {
		if wrong := regexRule(value); wrong != "" {
			c.errorf("%s", wrong)
		}
	}
}

var pathCharacters = regexp.MustCompile(`^(?:[-A-Za-z0-9/._~!$&'()*+,;=:@]|[%][0-9a-fA-F]{2})+$`)

func (p *pathMatch) check(c cursor) {
	value := c.at("value")
	if p.Type == string(mesh.Regex) {
		checkRegex(value, p.Type, p.Value)
		return
	}
	if value.node != c.node {
		checkPath(value, p.Value)
	}
}

// checkPath holds the rules for a literal path of a match.
func checkPath(c cursor, path string) {
	if !strings.HasPrefix(path, "/") {
		c.errorf("%s does not begin with a slash; write %s", quote(path), quote("/"+path))
		return
	}
	for _, part := range []string{"//", "/./", "/../", "%2f", "%2F", "#"} {
		if strings.Contains(path, part) {
			c.errorf("%s contains %q; proxies normalise such paths and would never match it, remove it", quote(path), part)
			return
		}
	}
	if strings.HasSuffix(path, "/..") || strings.HasSuffix(path, "/.") {
		c.errorf("%s ends with a dot segment; remove it", quote(path))
		return
	}
	if !pathCharacters.MatchString(path) {
		c.errorf("%s has a character that a path cannot have; write it as %%XX (RFC 3986)", quote(path))
	}
}

func (m *httpMatch) check(c cursor) {
	checkNames(c.at("headers"), m.Headers, strings.ToLower)
	checkNames(c.at("queryParams"), m.QueryParams, func(s string) string { return s })
}

func checkNames(c cursor, list []valueMatch, fold func(string) string) {
	seen := make(map[string]bool)
	for i, v := range list {
		if name := fold(v.Name); name != "" && seen[name] {
			c.index(i).at("name").errorf("%s is matched before already; give each name once", quote(v.Name))
		} else {
			seen[name] = true
		}
	}
}

func (t *timeouts) check(c cursor) {
	if request := duration(t.Request); request > 0 && duration(t.BackendRequest) > request {
		c.at("backendRequest").errorf("%s is longer than request, %s; one try cannot outlast the whole, shorten it", t.BackendRequest, t.Request)
	}
}

func (r *retry) check(c cursor) {
	if r.Backoff != "" && durationRule(r.Backoff) == "" && duration(r.Backoff) == 0 {
		c.at("backoff").errorf("is 0; give at least 1ms or leave it out")
	}
}

func (r *httpRule) check(c cursor) {
	checkFilters(c.at("filters"), r.Filters)
	for i, f := range r.Filters {
		if f.RequestRedirect != nil && len(r.BackendRefs) > 0 {
			c.at("filters").index(i).errorf("a rule that redirects asks no backend; remove backendRefs or the RequestRedirect")
		}
		r.checkPrefix(c.at("filters").index(i), f)
	}
	for i, b := range r.BackendRefs {
		for j, f := range b.Filters {
			at := c.at("backendRefs").index(i).at("filters").index(j)
			if f.RequestRedirect != nil {
				at.errorf("RequestRedirect cannot be on a backend; put it on the rule")
			}
			r.checkPrefix(at, f)
		}
	}
}

// checkPrefix: a prefix can only be replaced where one prefix is matched.
func (r *httpRule) checkPrefix(c cursor, f filter) {
	change := f.pathChange()
	if change == nil || change.ReplacePrefixMatch == nil {
		return
	}
	if n := len(r.Matches); n == 0 || n == 1 && (r.Matches[0].Path == nil || r.Matches[0].Path.kind() == mesh.Prefix) {
		return
	}
	c.errorf("replacePrefixMatch needs a rule with exactly one match, of type PathPrefix; split the rule")
}

func (s *httpRouteSpec) checkSpec(c cursor, m metadata) {
	checkParents(c.at("parentRefs"), s.ParentRefs, m)
	total, names := 0, make(map[string]bool)
	for i, r := range s.Rules {
		total += max(1, len(r.Matches))
		checkRuleName(c.at("rules").index(i), r.Name, names)
	}
	if total > 128 {
		c.at("rules").errorf("have %d matches together; at most 128 are allowed, make another route", total)
	}
}

func checkRuleName(c cursor, name string, seen map[string]bool) {
	if name != "" && seen[name] {
		c.at("name").errorf("%s is the name of a rule before; give each rule its own", quote(name))
	}
	seen[name] = true
}

// kind is how the path is compared; Gateway API's default is PathPrefix.
func (p *pathMatch) kind() mesh.MatchKind {
	if p.Type == "" {
		return mesh.Prefix
	}
	return mesh.MatchKind(p.Type)
}

func (s *httpRouteSpec) build(meta mesh.Meta, m metadata, _ Options) mesh.Object {
	route := &mesh.Route{Meta: meta, Parents: parents(s.ParentRefs, m)}
	rules := s.Rules
	if len(rules) == 0 {
		rules = []httpRule{{}} // Gateway API's default: one rule, with the default match
	}
	for _, r := range rules {
		rule := mesh.Rule{Name: r.Name, Filters: buildFilters(r.Filters, m), Backends: backends(r.BackendRefs, m)}
		for _, match := range r.Matches {
			rule.Matches = append(rule.Matches, match.build())
		}
		if len(rule.Matches) == 0 {
			rule.Matches = []mesh.Match{(&httpMatch{}).build()}
		}
		if r.Timeouts != nil {
			rule.RequestTimeout, rule.BackendTimeout = duration(r.Timeouts.Request), duration(r.Timeouts.BackendRequest)
		}
		if r.Retry != nil {
			rule.Retry = &mesh.Retry{Attempts: 1, Codes: r.Retry.Codes, Backoff: duration(r.Retry.Backoff)}
			set(&rule.Retry.Attempts, r.Retry.Attempts)
		}
		route.Rules = append(route.Rules, rule)
	}
	return route
}

func (m *httpMatch) build() mesh.Match {
	out := mesh.Match{Path: mesh.StringMatch{Kind: mesh.Prefix, Value: "/"}, Method: m.Method,
		Headers: named(m.Headers), Query: named(m.QueryParams)}
	if m.Path != nil {
		out.Path.Kind = m.Path.kind()
		if m.Path.Value != "" {
			out.Path.Value = m.Path.Value
		}
	}
	return out
}

func named(list []valueMatch) []mesh.NamedMatch {
	var out []mesh.NamedMatch
	for _, v := range list {
		kind := mesh.Exact
		if v.Type != "" {
			kind = mesh.MatchKind(v.Type)
		}
		out = append(out, mesh.NamedMatch{Name: v.Name, StringMatch: mesh.StringMatch{Kind: kind, Value: v.Value}})
	}
	return out
}
