package manifest

import (
	"fmt"

	"github.com/heddle-mesh/heddle/controlplane/mesh"
)

// parentRef is what a route attaches to: in a mesh, a Service (GAMMA, GEP-1294). Group
// and kind default to a Gateway's, so that both must be there.
type parentRef struct {
	Group     *string `json:"group,omitempty"`
	Kind      string  `json:"kind,omitempty"`
	Namespace string  `json:"namespace,omitempty" is:"label1123"`
	Name      string  `json:"name" need:"the service's name" is:"label1035"`
	Port      uint16  `json:"port,omitempty" min:"1" max:"65535"`

	SectionName unsupported `json:"-" field:"sectionName" unsupported:"give the port's number in port"`
}

func (p *parentRef) check(c cursor) {
	if p.Kind != "Service" {
		c.at("kind").errorf("a route of the mesh attaches to a Service, and the default is a Gateway; give kind: Service")
	}
	if p.Group == nil || *p.Group != "" {
		c.at("group").errorf("the default is a Gateway's group; give group: \"\", which is the group of Service")
	}
}

// checkParents: a service may be named twice with two ports only.
func checkParents(c cursor, list []parentRef, m metadata) {
	type target struct {
		service mesh.Name
		port    uint16
	}
	ports, seen := make(map[mesh.Name]uint16), make(map[target]bool)
	for i, p := range list {
		name := serviceRef(p.Namespace, p.Name, m)
		if p.Name == "" {
			continue
		}
		first, again := ports[name]
		switch {
		case seen[target{name, p.Port}]:
			c.index(i).errorf("names %s a second time; remove one of the two", quote(p.Name))
		case again && (first == 0 || p.Port == 0):
			c.index(i).at("port").errorf("%s is named twice, once with all of its ports; give a port in both or remove one", quote(p.Name))
		}
		ports[name], seen[target{name, p.Port}] = p.Port, true
	}
}

func parents(list []parentRef, m metadata) []mesh.Parent {
	var out []mesh.Parent
	for _, p := range list {
		out = append(out, mesh.Parent{Service: serviceRef(p.Namespace, p.Name, m), Port: p.Port})
	}
	return out
}

// objectRef is a service with a port.
type objectRef struct {
	Group     string `json:"group,omitempty" is:"coreGroup"`
	Kind      string `json:"kind,omitempty" in:"Service"`
	Namespace string `json:"namespace,omitempty" is:"label1123"`
	Name      string `json:"name" need:"the service's name" is:"label1035"`
	Port      uint16 `json:"port" need:"the service's port" min:"1" max:"65535"`
}

// build marks a reference to another namespace as denied: Gateway API lets it through
// only with a ReferenceGrant there, and documents of that kind are not read yet.
func (o objectRef) build(m metadata) mesh.Backend {
	name := serviceRef(o.Namespace, o.Name, m)
	return mesh.Backend{Service: name, Port: o.Port, Weight: 1, Denied: name.Namespace != m.Namespace}
}

// backendRef is a weighted objectRef with filters of its own.
type backendRef struct {
	Group     string   `json:"group,omitempty" is:"coreGroup"`
	Kind      string   `json:"kind,omitempty" in:"Service"`
	Namespace string   `json:"namespace,omitempty" is:"label1123"`
	Name      string   `json:"name" need:"the service's name" is:"label1035"`
	Port      uint16   `json:"port" need:"the service's port" min:"1" max:"65535"`
	Weight    *uint32  `json:"weight,omitempty" min:"0" max:"1000000"`
	Filters   []filter `json:"filters,omitempty" max:"16"`
}

func (b *backendRef) check(c cursor) { checkFilters(c.at("filters"), b.Filters) }

func backends(list []backendRef, m metadata) []mesh.Backend {
	var out []mesh.Backend
	for _, b := range list {
		one := objectRef{Namespace: b.Namespace, Name: b.Name, Port: b.Port}.build(m)
		set(&one.Weight, b.Weight)
		one.Filters = buildFilters(b.Filters, m)
		out = append(out, one)
	}
	return out
}

// checkFilters: a filter may stand once in a list, mirrors as often as one likes, and a
// redirect and a rewrite exclude each other.
func checkFilters(c cursor, list []filter) {
	seen := make(map[string]int)
	for i, f := range list {
		first, again := seen[f.Type]
		if again && f.Type != "RequestMirror" && f.Type != "" {
			c.index(i).errorf("%s stands in %s already; join the two", f.Type, fmt.Sprintf("filters[%d]", first))
		}
		seen[f.Type] = i
	}
	_, redirect := seen["RequestRedirect"]
	if i, rewrite := seen["URLRewrite"]; redirect && rewrite {
		c.index(i).errorf("URLRewrite and RequestRedirect exclude each other; remove one of the two")
	}
}
