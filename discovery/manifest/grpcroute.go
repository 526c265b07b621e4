package manifest

import (
	"regexp"
	"strings"

	"github.com/heddle-mesh/heddle/controlplane/mesh"
)

// The limits and rules are those of gateway-api, apis/v1/grpcroute_types.go.
type grpcRouteSpec struct {
	ParentRefs []parentRef `json:"parentRefs" need:"a service to attach to" min:"1" max:"32"`
	Rules      []grpcRule  `json:"rules,omitempty" max:"16"`

	Hostnames unsupported `json:"-" field:"hostnames" unsupported:"a route of the mesh attaches to a service, whatever it is called; remove it"`
}

type grpcRule struct {
	Name        string       `json:"name,omitempty" is:"subdomain"`
	Matches     []grpcMatch  `json:"matches,omitempty" max:"64"`
	Filters     []filter     `json:"filters,omitempty" max:"16"`
	BackendRefs []backendRef `json:"backendRefs,omitempty" max:"16"`

	SessionPersistence unsupported `json:"-" field:"sessionPersistence" unsupported:"remove it"`
}

type grpcMatch struct {
	Method  *methodMatch `json:"method,omitempty"`
	Headers []valueMatch `json:"headers,omitempty" max:"16"`
}

type methodMatch struct {
	Type    string `json:"type,omitempty" in:"Exact|RegularExpression"`
	Service string `json:"service,omitempty" max:"1024"`
	Method  string `json:"method,omitempty" max:"1024"`
}

var (
	grpcService = regexp.MustCompile(`^(?i)\.?[a-z_][a-z_0-9]*(\.[a-z_][a-z_0-9]*)*$`)
	grpcMethod  = regexp.MustCompile(`^[A-Za-z_][A-Za-z_0-9]*$`)
)

func (m *methodMatch) check(c cursor) {
	if m.Service == "" && m.Method == "" {
		c.errorf("matches nothing; give service, method or both")
	}
	if m.Type == string(mesh.Regex) {
		checkRegex(c.at("service"), m.Type, m.Service)
		checkRegex(c.at("method"), m.Type, m.Method)
		return
	}
	if m.Service != "" && !grpcService.MatchString(m.Service) {
		c.at("service").errorf("%s is not a gRPC service; write PACKAGE.SERVICE as in the .proto", quote(m.Service))
	}
	if m.Method != "" && !grpcMethod.MatchString(m.Method) {
		c.at("method").errorf("%s is not a gRPC method; write its name alone as in the .proto", quote(m.Method))
	}
}

func (m *grpcMatch) check(c cursor) { checkNames(c.at("headers"), m.Headers, strings.ToLower) }

func (r *grpcRule) check(c cursor) {
	checkFilters(c.at("filters"), r.Filters)
	refuse := func(at cursor, f filter) {
		if f.RequestRedirect != nil || f.URLRewrite != nil {
			at.at("type").errorf("a GRPCRoute has no filter %s; use RequestHeaderModifier, ResponseHeaderModifier or RequestMirror", f.Type)
		}
	}
	for i, f := range r.Filters {
		refuse(c.at("filters").index(i), f)
	}
	for i, b := range r.BackendRefs {
		for j, f := range b.Filters {
			refuse(c.at("backendRefs").index(i).at("filters").index(j), f)
		}
	}
}

func (s *grpcRouteSpec) checkSpec(c cursor, m metadata) {
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

func (s *grpcRouteSpec) build(meta mesh.Meta, m metadata, _ Options) mesh.Object {
	route := &mesh.Route{Meta: meta, Parents: parents(s.ParentRefs, m)}
	rules := s.Rules
	if len(rules) == 0 {
		rules = []grpcRule{{}}
	}
	for _, r := range rules {
		rule := mesh.Rule{Name: r.Name, Filters: buildFilters(r.Filters, m), Backends: backends(r.BackendRefs, m)}
		for _, match := range r.Matches {
			rule.Matches = append(rule.Matches, mesh.Match{Path: match.Method.path(), Headers: named(match.Headers)})
		}
		if len(rule.Matches) == 0 {
			rule.Matches = []mesh.Match{{}}
		}
		route.Rules = append(route.Rules, rule)
	}
	return route
}

// path is a method match as a match of the path /SERVICE/METHOD that gRPC calls have.
func (m *methodMatch) path() mesh.StringMatch {
	if m == nil {
		return mesh.StringMatch{}
	}
	service, method := m.Service, m.Method
	if m.Type != string(mesh.Regex) {
		switch {
		case method == "":
			return mesh.StringMatch{Kind: mesh.Prefix, Value: "/" + service}
		case service != "":
			return mesh.StringMatch{Kind: mesh.Exact, Value: "/" + service + "/" + method}
		}
	}
	part := func(expression string) string {
		if expression == "" {
			return "[^/]+"
		}
		return "(?:" + expression + ")"
	}
	return mesh.StringMatch{Kind: mesh.Regex, Value: "/" + part(service) + "/" + part(method)}
}
