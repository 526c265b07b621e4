package mesh

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Edge is what a gateway serves, made of all that attaches to it.
type Edge struct {
	Hosts []EdgeHost // by name
	// Certificates are those of the hosts, each once.
	Certificates []*Certificate
}

// EdgeHost is one name that a gateway serves. What has no rule leads nowhere.
type EdgeHost struct {
	Name string // as in IngressHost
	// Plain are the rules for requests in the clear, Secure those for TLS, which there are
	// only with a Certificate. The most important route goes first.
	Plain, Secure []*Route
	Certificate   Name // zero: none
}

// EdgeOf puts together what a gateway serves, and finds the faults of the objects that
// say so. A name belongs to the namespace of the oldest Ingress with it: another team must
// not take over a part of it.
func (s *Snapshot) EdgeOf(gateway Name) (*Edge, map[Name][]Fault) {
	b := edgeBuilder{snapshot: s, hosts: map[string]*edgeHost{}, faults: map[Name][]Fault{}}
	for _, i := range s.ingressesOf.Get(gateway) {
		b.faults[i.Name] = slices.Clone(i.Faults)
		for n := range i.Hosts {
			b.add(i, &i.Hosts[n])
		}
	}
	return b.edge(), b.faults
}

type edgeBuilder struct {
	snapshot *Snapshot
	hosts    map[string]*edgeHost
	faults   map[Name][]Fault
}

// edgeHost is a host while it is put together.
type edgeHost struct {
	EdgeHost
	owner                        *Ingress
	plainDefaults, secureDefault []*Route
	certificate                  *Certificate
}

func (b *edgeBuilder) fault(i *Ingress, field, format string, args ...any) {
	f := Fault{field, fmt.Sprintf(format, args...)}
	if !slices.Contains(b.faults[i.Name], f) { // one rule may be of several hosts
		b.faults[i.Name] = append(b.faults[i.Name], f)
	}
}

// add adds what an Ingress says of a host.
func (b *edgeBuilder) add(i *Ingress, h *IngressHost) {
	at := b.hosts[h.Name]
	if at == nil {
		at = &edgeHost{EdgeHost: EdgeHost{Name: h.Name}, owner: i}
		b.hosts[h.Name] = at
	}
	if at.owner.Namespace != i.Namespace {
		b.fault(i, h.Field, "%s belongs to namespace %s, as Ingress %s is older; choose another host, or move the rules there",
			cmp.Or(h.Name, "the host of requests that no rule names"), at.owner.Namespace, at.owner.Name)
		return
	}
	secret := h.Secret != Name{}
	if secret && at.certificate == nil {
		at.certificate = b.certificate(i, h)
	}
	rules, defaults := b.rules(i, h)
	at.Secure, at.secureDefault = attach(at.Secure, i, rules), attach(at.secureDefault, i, defaults)
	if secret { // never in the clear what is meant to be secret
		rules, defaults = redirected(rules), redirected(defaults)
	}
	at.Plain, at.plainDefaults = attach(at.Plain, i, rules), attach(at.plainDefaults, i, defaults)
}

func attach(routes []*Route, i *Ingress, rules []Rule) []*Route {
	if len(rules) == 0 {
		return routes
	}
	return append(routes, &Route{Meta: i.Meta, Rules: rules})
}

// certificate finds the certificate of a host; nil where it cannot be used.
func (b *edgeBuilder) certificate(i *Ingress, h *IngressHost) *Certificate {
	c, ok := b.snapshot.Certificates.Lookup(h.Secret)
	if !ok {
		return nil // it is being read
	}
	if c.Fault != "" {
		b.fault(i, h.SecretField, "Secret %s %s", h.Secret, c.Fault)
	}
	if c.Chain == "" {
		return nil
	}
	return c
}

// rules makes the rules of a host, and of those the ones for what no path matches.
func (b *edgeBuilder) rules(i *Ingress, h *IngressHost) (rules, defaults []Rule) {
	for _, p := range h.Paths {
		rule := Rule{
			Matches:  []Match{{Path: p.Path}},
			Backends: []Backend{{Service: p.Service, Port: b.port(i, p), Weight: 1}},
		}
		if p.Default {
			defaults = append(defaults, rule)
		} else {
			rules = append(rules, rule)
		}
	}
	return rules, defaults
}

// port finds the number of a backend's port; 0 where there is none.
func (b *edgeBuilder) port(i *Ingress, p IngressPath) uint16 {
	s, ok := b.snapshot.Services.Lookup(p.Service)
	switch {
	case !ok:
		b.fault(i, p.Field, "Service %s does not exist; create it, or correct the name", p.Service)
		return 0
	case s.ExternalName != "":
		b.fault(i, p.Field, "Service %s is another name of %s; an Ingress leads to pods of the cluster only", p.Service, s.ExternalName)
		return 0
	}
	var has []string
	for _, port := range s.Ports {
		if p.PortName != "" && port.Name == p.PortName || p.PortName == "" && port.Port == p.Port {
			return port.Port
		}
		has = append(has, strings.TrimPrefix(fmt.Sprintf("%s %d", port.Name, port.Port), " "))
	}
	b.fault(i, p.Field, "Service %s has no port %s; it has %s", p.Service,
		cmp.Or(p.PortName, fmt.Sprint(p.Port)), cmp.Or(strings.Join(has, ", "), "none that is TCP"))
	return 0
}

// redirected gives rules that send clients to the same address over TLS.
func redirected(rules []Rule) []Rule {
	var out []Rule
	for _, r := range rules {
		out = append(out, Rule{Matches: r.Matches, Filters: []Filter{{Redirect: &Redirect{Scheme: "https", Code: 308}}}})
	}
	return out
}

func (b *edgeBuilder) edge() *Edge {
	out := new(Edge)
	for _, h := range b.hosts {
		h.Plain = append(h.Plain, h.plainDefaults...)
		h.Secure = append(h.Secure, h.secureDefault...)
		if h.certificate == nil {
			h.Secure = nil
		} else {
			h.EdgeHost.Certificate = h.certificate.Name
			if !slices.Contains(out.Certificates, h.certificate) {
				out.Certificates = append(out.Certificates, h.certificate)
			}
		}
		out.Hosts = append(out.Hosts, h.EdgeHost)
	}
	slices.SortFunc(out.Hosts, func(a, b EdgeHost) int { return cmp.Compare(a.Name, b.Name) })
	slices.SortFunc(out.Certificates, compareRefs)
	return out
}
