package manifest

import (
	"bytes"
	"encoding/json"
	"slices"

	"github.com/heddle-mesh/heddle/controlplane/mesh"
	"github.com/heddle-mesh/heddle/identity/spiffeid"
)

type policySpec struct {
	TargetRefs []targetRef  `json:"targetRefs,omitempty" min:"1" max:"16"`
	Action     string       `json:"action,omitempty" in:"Allow|Deny" default:"Allow"`
	Rules      []policyRule `json:"rules,omitempty" max:"64"`
}

type targetRef struct {
	Group string `json:"group,omitempty" is:"coreGroup"`
	Kind  string `json:"kind" need:"Service" in:"Service"`
	Name  string `json:"name" need:"the service's name" is:"label1035"`
}

// A list that is given and empty is refused: that it means "any" would surprise whoever
// removed its last element.
type policyRule struct {
	From  []caller `json:"from,omitempty" min:"1" max:"64"`
	Ports []uint16 `json:"ports,omitempty" min:"1" max:"64" eachMin:"1" eachMax:"65535"`
}

type caller struct {
	ServiceAccount string `json:"serviceAccount,omitempty" is:"subdomain"`
	Namespace      string `json:"namespace,omitempty" is:"label1123"`
	Identity       string `json:"identity,omitempty" is:"identity"`
}

func (f *caller) check(c cursor) {
	switch {
	case f.Identity != "" && (f.ServiceAccount != "" || f.Namespace != ""):
		c.errorf("has an identity and more; give identity alone, or serviceAccount and namespace")
	case *f == caller{}:
		c.errorf("names nobody; give serviceAccount, namespace or identity")
	}
	if id, err := spiffeid.Parse(f.Identity); err == nil && id.TrustDomain() != c.r.opts.TrustDomain {
		c.at("identity").errorf("is of trust domain %q and this mesh is %q; identities of others cannot connect", id.TrustDomain(), c.r.opts.TrustDomain)
	}
}

// validations says what check says. CEL calls the field namespace so.
func (*caller) validations() []validation {
	return []validation{
		{"!has(self.identity) || !has(self.serviceAccount) && !has(self.__namespace__)", "has an identity and more; give identity alone, or serviceAccount and namespace"},
		{"has(self.identity) || has(self.serviceAccount) || has(self.__namespace__)", "names nobody; give serviceAccount, namespace or identity"},
	}
}

func (*policySpec) validations() []validation {
	return []validation{
		{"!has(self.action) || self.action != 'Deny' || has(self.rules) && size(self.rules) > 0", "a Deny without rules refuses nobody; add a rule, {} refuses everybody"},
		{"!has(self.targetRefs) || self.targetRefs.all(t, self.targetRefs.exists_one(o, o.name == t.name))", "targets a service a second time; remove one of the two"},
	}
}

func (s *policySpec) checkSpec(c cursor, _ metadata) {
	targets := make(map[string]bool)
	for i, t := range s.TargetRefs {
		if targets[t.Name] && t.Name != "" {
			c.at("targetRefs").index(i).errorf("targets %s a second time; remove one of the two", quote(t.Name))
		}
		targets[t.Name] = true
	}
	if s.Action == "Deny" && len(s.Rules) == 0 {
		c.at("rules").errorf("a Deny without rules refuses nobody; add a rule, {} refuses everybody")
	}
}

func (s *policySpec) build(meta mesh.Meta, m metadata, o Options) mesh.Object {
	p := &mesh.AuthorizationPolicy{Meta: meta, Deny: s.Action == "Deny"}
	for _, t := range s.TargetRefs {
		p.Targets = append(p.Targets, serviceRef("", t.Name, m))
	}
	for _, r := range s.Rules {
		rule := mesh.AuthorizationRule{Ports: r.Ports}
		for _, f := range r.From {
			rule.From = append(rule.From, f.build(m, o))
		}
		p.Rules = append(p.Rules, rule)
	}
	return p
}

func (f *caller) build(m metadata, o Options) mesh.Caller {
	switch {
	case f.Identity != "":
		id, _ := spiffeid.Parse(f.Identity) // checked by the schema
		return mesh.Caller{Identity: id}
	case f.ServiceAccount == "":
		return mesh.Caller{Namespace: f.Namespace}
	}
	name := serviceRef(f.Namespace, f.ServiceAccount, m)
	id, _ := spiffeid.New(o.TrustDomain, name.Namespace, name.Name) // DNS names are path segments
	return mesh.Caller{Identity: id}
}

// ClosedPolicy is what is safe to enforce in the place of an AuthorizationPolicy that
// cannot be read: not less than it may have meant. Where it is an Allow it allows nobody,
// and what other policies allow goes on; anything else refuses everybody. It is for the
// services that it targets if those can be read, else for all of the namespace. spec is
// JSON, and may be anything.
func ClosedPolicy(name mesh.Name, spec []byte) *mesh.AuthorizationPolicy {
	p := &mesh.AuthorizationPolicy{
		Meta: mesh.Meta{Ref: mesh.Ref{Kind: mesh.KindAuthorizationPolicy, Name: name}},
		Deny: true, Rules: []mesh.AuthorizationRule{{}},
	}
	var fields struct{ TargetRefs, Action json.RawMessage }
	if json.Unmarshal(spec, &fields) != nil {
		return p
	}
	if a := fields.Action; a == nil || bytes.Equal(bytes.TrimSpace(a), []byte(`"Allow"`)) {
		p.Deny, p.Rules = false, nil
	}
	var targets []targetRef
	if json.Unmarshal(fields.TargetRefs, &targets) != nil {
		return p
	}
	for _, t := range targets {
		if t.Kind != string(mesh.KindService) || t.Group != "" || textRules["label1035"](t.Name) != "" {
			p.Targets = nil
			return p
		}
		if n := serviceRef("", t.Name, metadata{Namespace: name.Namespace}); !slices.Contains(p.Targets, n) {
			p.Targets = append(p.Targets, n)
		}
	}
	return p
}
