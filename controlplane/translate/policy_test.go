package translate

import (
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	xdsmatcherv3 "github.com/cncf/xds/go/xds/type/matcher/v3"
	rbacconfigv3 "github.com/envoyproxy/go-control-plane/envoy/config/rbac/v3"

	"github.com/heddle-mesh/heddle/controlplane/mesh"
	"github.com/heddle-mesh/heddle/identity/spiffeid"
)

const domain = "mesh.local"

func identity(t testing.TB, namespace, name string) spiffeid.ID {
	t.Helper()
	id, err := spiffeid.New(domain, namespace, name)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func authorization(name string, deny bool, rules ...mesh.AuthorizationRule) *mesh.AuthorizationPolicy {
	return &mesh.AuthorizationPolicy{
		Meta: mesh.Meta{Ref: mesh.Ref{Kind: mesh.KindAuthorizationPolicy, Name: mesh.Name{Namespace: "default", Name: name}}},
		Deny: deny, Rules: rules,
	}
}

func from(callers ...mesh.Caller) mesh.AuthorizationRule {
	return mesh.AuthorizationRule{From: callers}
}

func TestAccess(t *testing.T) {
	web := identity(t, "default", "web")
	namespace := func(ns string) mesh.Caller { return mesh.Caller{Namespace: ns} }
	one := mesh.Caller{Identity: web}
	onPort := func(port uint16, callers ...mesh.Caller) mesh.AuthorizationRule {
		return mesh.AuthorizationRule{From: callers, Ports: []uint16{port}}
	}
	for _, c := range []struct {
		name     string
		policies []*mesh.AuthorizationPolicy
		want     string // whoever is let in of default/web, default/job, trusted/web
		open     bool   // no filter is needed
	}{
		{"no policy", nil, "default/web default/job trusted/web", true},
		{"allow nobody", []*mesh.AuthorizationPolicy{authorization("a", false)}, "", false},
		{"allow anybody", []*mesh.AuthorizationPolicy{authorization("a", false, mesh.AuthorizationRule{})}, "default/web default/job trusted/web", true},
		{"allow one", []*mesh.AuthorizationPolicy{authorization("a", false, from(one))}, "default/web", false},
		{"allow a namespace", []*mesh.AuthorizationPolicy{authorization("a", false, from(namespace("default")))}, "default/web default/job", false},
		{"deny one", []*mesh.AuthorizationPolicy{authorization("d", true, from(one))}, "default/job trusted/web", false},
		{"deny a namespace", []*mesh.AuthorizationPolicy{authorization("d", true, from(namespace("default")))}, "trusted/web", false},
		{"deny everybody", []*mesh.AuthorizationPolicy{authorization("d", true, mesh.AuthorizationRule{})}, "", false},
		{"deny without rules", []*mesh.AuthorizationPolicy{authorization("d", true)}, "default/web default/job trusted/web", true},
		{"deny one of an allowed namespace", []*mesh.AuthorizationPolicy{
			authorization("a", false, from(namespace("default"))), authorization("d", true, from(one)),
		}, "default/job", false},
		{"allow one of a denied namespace", []*mesh.AuthorizationPolicy{
			authorization("a", false, from(one)), authorization("d", true, from(namespace("default"))),
		}, "", false},
		{"two allowances add up", []*mesh.AuthorizationPolicy{
			authorization("a", false, from(one)), authorization("b", false, from(namespace("trusted"))),
		}, "default/web trusted/web", false},
		{"allow on this port", []*mesh.AuthorizationPolicy{authorization("a", false, onPort(80, one))}, "default/web", false},
		{"allow on another port", []*mesh.AuthorizationPolicy{authorization("a", false, onPort(81, one))}, "", false},
		{"deny on this port", []*mesh.AuthorizationPolicy{authorization("d", true, onPort(80, one))}, "default/job trusted/web", false},
		{"deny on another port", []*mesh.AuthorizationPolicy{authorization("d", true, onPort(81, one))}, "default/web default/job trusted/web", true},
		{"a namespace is no prefix of another", []*mesh.AuthorizationPolicy{authorization("d", true, from(namespace("trust")))},
			"default/web default/job trusted/web", false},
	} {
		access := NewAccess(domain, c.policies, []Backend{{mesh.Name{Namespace: "default", Name: "api"}, 80}})
		var in []string
		for _, id := range []spiffeid.ID{web, identity(t, "default", "job"), identity(t, "trusted", "web")} {
			if allowed, _ := judge(t, matcher(access), id.String()); allowed {
				in = append(in, strings.NewReplacer("spiffe://"+domain+"/ns/", "", "/sa/", "/").Replace(id.String()))
			}
		}
		for _, id := range []spiffeid.ID{web, identity(t, "default", "job"), identity(t, "trusted", "web")} {
			if allowed, _ := judge(t, matcher(access), id.String()); admits(t, access, id) != allowed {
				t.Errorf("%s: %s is let in over HTTP: %v, by the handshake it is not", c.name, id, allowed)
			}
		}
		if got := strings.Join(in, " "); got != c.want {
			t.Errorf("%s: %q are let in, want %q", c.name, got, c.want)
		}
		if access.open() != c.open {
			t.Errorf("%s: open is %v", c.name, access.open())
		}
	}
}

// TestAccessByTarget has a workload behind two services, each with the number 80 for a port
// of its own: what is said of one does not hold for the other.
func TestAccessByTarget(t *testing.T) {
	web := identity(t, "default", "web")
	api, admin := mesh.Name{Namespace: "default", Name: "api"}, mesh.Name{Namespace: "default", Name: "admin"}
	rule := from(mesh.Caller{Identity: web})
	rule.Ports = []uint16{80}
	open, closed := authorization("open", false, rule), authorization("closed", false)
	open.Targets, closed.Targets = []mesh.Name{api}, []mesh.Name{admin}
	policies := []*mesh.AuthorizationPolicy{open, closed}
	for service, want := range map[mesh.Name]bool{api: true, admin: false} {
		if got, _ := judge(t, matcher(NewAccess(domain, policies, []Backend{{service, 80}})), web.String()); got != want {
			t.Errorf("port of %s: %v", service, got)
		}
	}
	if !NewAccess(domain, policies, []Backend{{mesh.Name{Namespace: "default", Name: "other"}, 80}}).open() {
		t.Error("policies hold for a port that leads to none of their targets")
	}
}

// FuzzAccess compares the look-up, as Envoy gets it, with the order that the doc of
// mesh.AuthorizationPolicy gives, taken literally.
func FuzzAccess(f *testing.F) {
	for seed := range uint64(200) {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, seed uint64) {
		r := rand.New(rand.NewPCG(seed, 1))
		namespaces, names := []string{"a", "b", "ab"}, []string{"x", "y", "xy"}
		pick := func(list []string) string { return list[r.IntN(len(list))] }
		var policies []*mesh.AuthorizationPolicy
		for range r.IntN(4) {
			p := authorization("p"+pick(names), r.IntN(2) == 0)
			for range r.IntN(3) {
				var rule mesh.AuthorizationRule
				for range r.IntN(3) {
					if r.IntN(2) == 0 {
						rule.From = append(rule.From, mesh.Caller{Namespace: pick(namespaces)})
					} else {
						rule.From = append(rule.From, mesh.Caller{Identity: identity(t, pick(namespaces), pick(names))})
					}
				}
				for range r.IntN(2) {
					rule.Ports = append(rule.Ports, uint16(80+r.IntN(3)))
				}
				p.Rules = append(p.Rules, rule)
			}
			policies = append(policies, p)
		}
		ports := []uint16{80, 81}[:1+r.IntN(2)]
		var reached []Backend
		for _, port := range ports {
			reached = append(reached, Backend{mesh.Name{Namespace: "default", Name: "api"}, port})
		}
		access := NewAccess(domain, policies, reached)
		for _, ns := range namespaces {
			for _, name := range names {
				id := identity(t, ns, name)
				got, policy := judge(t, matcher(access), id.String())
				if want := literal(policies, id, ns, ports); got != want {
					t.Fatalf("%s: %v by %s, want %v: %+v", id, got, policy, want, policies)
				}
				if access.open() && !got {
					t.Fatalf("%s is refused where no filter is", id)
				}
				if admits(t, access, id) != got {
					t.Fatalf("%s: let in is %v over HTTP, not by the handshake %v", id, got, access.admitted(domain))
				}
			}
		}
	})
}

// literal is the order of the doc: a matching Deny refuses; else, when there is any Allow,
// one must match; else the caller is let in.
func literal(policies []*mesh.AuthorizationPolicy, id spiffeid.ID, namespace string, ports []uint16) bool {
	matches := func(p *mesh.AuthorizationPolicy) bool {
		return slices.ContainsFunc(p.Rules, func(r mesh.AuthorizationRule) bool {
			caller := len(r.From) == 0 || slices.ContainsFunc(r.From, func(c mesh.Caller) bool {
				return c.Namespace == namespace || c.Identity == id
			})
			port := len(r.Ports) == 0 || slices.ContainsFunc(r.Ports, func(n uint16) bool { return slices.Contains(ports, n) })
			return caller && port
		})
	}
	restricted, allowed := false, false
	for _, p := range policies {
		switch {
		case p.Deny && matches(p):
			return false
		case !p.Deny:
			restricted = true
			allowed = allowed || matches(p)
		}
	}
	return allowed || !restricted
}

// judge walks a matcher as Envoy does: the exact entry, or the longest prefix, or what
// stands for no match. It gives the decision and the policy that made it.
func judge(t *testing.T, m *xdsmatcherv3.Matcher, id string) (allowed bool, policy string) {
	t.Helper()
	on := m.OnNoMatch
	if exact := m.GetMatcherTree().GetExactMatchMap(); exact != nil && exact.Map[id] != nil {
		on = exact.Map[id]
	}
	longest := ""
	for prefix, then := range m.GetMatcherTree().GetPrefixMatchMap().GetMap() {
		if strings.HasPrefix(id, prefix) && len(prefix) > len(longest) {
			longest, on = prefix, then
		}
	}
	if next := on.GetMatcher(); next != nil {
		return judge(t, next, id)
	}
	action := &rbacconfigv3.Action{}
	if err := on.GetAction().GetTypedConfig().UnmarshalTo(action); err != nil {
		t.Fatal(err)
	}
	return action.Action == rbacconfigv3.RBAC_ALLOW, action.Name
}
