package manifest

import (
	"strings"

	"github.com/heddle-mesh/heddle/controlplane/mesh"
)

// filter is Gateway API's union of filters: the field that Type names is set, no other.
type filter struct {
	Type                   string        `json:"type" need:"the filter's type" in:"RequestHeaderModifier|ResponseHeaderModifier|RequestRedirect|URLRewrite|RequestMirror"`
	RequestHeaderModifier  *headerChange `json:"requestHeaderModifier,omitempty"`
	ResponseHeaderModifier *headerChange `json:"responseHeaderModifier,omitempty"`
	RequestRedirect        *redirect     `json:"requestRedirect,omitempty"`
	URLRewrite             *rewrite      `json:"urlRewrite,omitempty"`
	RequestMirror          *mirror       `json:"requestMirror,omitempty"`

	ExtensionRef unsupported `json:"-" field:"extensionRef" unsupported:"remove it"`
	CORS         unsupported `json:"-" field:"cors" unsupported:"remove it"`
}

type headerChange struct {
	Set    []header `json:"set,omitempty" max:"16"`
	Add    []header `json:"add,omitempty" max:"16"`
	Remove []string `json:"remove,omitempty" max:"16" is:"header"`
}

type header struct {
	Name  string `json:"name" need:"the header's name" is:"header"`
	Value string `json:"value" need:"the header's value" min:"1"`
}

type redirect struct {
	Scheme     string      `json:"scheme,omitempty" in:"http|https"`
	Hostname   string      `json:"hostname,omitempty" is:"hostname"`
	Path       *pathChange `json:"path,omitempty"`
	Port       uint16      `json:"port,omitempty" min:"1" max:"65535"`
	StatusCode *int        `json:"statusCode,omitempty" min:"301" max:"308"`
}

type rewrite struct {
	Hostname string      `json:"hostname,omitempty" is:"hostname"`
	Path     *pathChange `json:"path,omitempty"`
}

type pathChange struct {
	Type               string  `json:"type" need:"ReplaceFullPath or ReplacePrefixMatch" in:"ReplaceFullPath|ReplacePrefixMatch"`
	ReplaceFullPath    *string `json:"replaceFullPath,omitempty" max:"1024"`
	ReplacePrefixMatch *string `json:"replacePrefixMatch,omitempty" max:"1024"`
}

type mirror struct {
	BackendRef objectRef `json:"backendRef" need:"the service to copy to"`
	Percent    *uint32   `json:"percent,omitempty" min:"0" max:"100"`
	Fraction   *fraction `json:"fraction,omitempty"`
}

type fraction struct {
	Numerator   *uint32 `json:"numerator" need:"the numerator" min:"0"`
	Denominator *uint32 `json:"denominator,omitempty" min:"1"`
}

func (f *filter) check(c cursor) {
	for _, one := range []struct {
		kind, field string
		set         bool
	}{
		{"RequestHeaderModifier", "requestHeaderModifier", f.RequestHeaderModifier != nil},
		{"ResponseHeaderModifier", "responseHeaderModifier", f.ResponseHeaderModifier != nil},
		{"RequestRedirect", "requestRedirect", f.RequestRedirect != nil},
		{"URLRewrite", "urlRewrite", f.URLRewrite != nil},
		{"RequestMirror", "requestMirror", f.RequestMirror != nil},
	} {
		switch {
		case f.Type == one.kind && !one.set:
			c.at(one.field).errorf("missing; a filter of type %s needs it", one.kind)
		case f.Type != "" && f.Type != one.kind && one.set:
			c.at(one.field).errorf("does not belong to type %s; remove it or give type: %s", f.Type, one.kind)
		}
	}
}

// check refuses what Gateway API does, and a change of Host, which Envoy's header
// mutation rejects.
func (h *headerChange) check(c cursor) {
	lists := []struct {
		field string
		names []string
	}{{"set", headerNames(h.Set)}, {"add", headerNames(h.Add)}, {"remove", h.Remove}}
	for _, list := range lists {
		seen := make(map[string]bool)
		for i, name := range list.names {
			at, low := c.at(list.field).index(i), strings.ToLower(name)
			if list.field != "remove" {
				at = at.at("name")
			}
			if seen[low] && name != "" {
				at.errorf("%s stands before already; header names are the same in upper and lower case, give it once", quote(name))
			}
			if low == "host" {
				at.errorf("Host cannot be changed here; use a URLRewrite filter with hostname")
			}
			seen[low] = true
		}
	}
	if len(h.Set)+len(h.Add)+len(h.Remove) == 0 {
		c.errorf("changes nothing; give set, add or remove")
	}
}

func headerNames(list []header) []string {
	var out []string
	for _, h := range list {
		out = append(out, h.Name)
	}
	return out
}

func (r *redirect) check(c cursor) {
	if r.StatusCode != nil {
		switch *r.StatusCode {
		case 301, 302, 303, 307, 308:
		default:
			c.at("statusCode").errorf("%d is not a redirection; give 301, 302, 303, 307 or 308", *r.StatusCode)
		}
	}
}

func (p *pathChange) check(c cursor) {
	for _, one := range []struct {
		kind, field string
		value       *string
	}{
		{"ReplaceFullPath", "replaceFullPath", p.ReplaceFullPath},
		{"ReplacePrefixMatch", "replacePrefixMatch", p.ReplacePrefixMatch},
	} {
		switch {
		case p.Type == one.kind && one.value == nil:
			c.at(one.field).errorf("missing; type %s needs it", one.kind)
		case p.Type != "" && p.Type != one.kind && one.value != nil:
			c.at(one.field).errorf("does not belong to type %s; remove it", p.Type)
		case one.value != nil && *one.value != "" && !strings.HasPrefix(*one.value, "/"):
			c.at(one.field).errorf("%s does not begin with a slash; write %s", quote(*one.value), quote("/"+*one.value))
		case one.value != nil && *one.value != "" && !pathCharacters.MatchString(*one.value):
			c.at(one.field).errorf("%s has a character that a path cannot have; write it as %%XX (RFC 3986)", quote(*one.value))
		}
	}
}

func (m *mirror) check(c cursor) {
	if m.Percent != nil && m.Fraction != nil {
		c.at("fraction").errorf("stands beside percent; give one of the two")
	}
}

func (f *fraction) check(c cursor) {
	if n, d := f.parts(); n > d {
		c.at("numerator").errorf("%d is more than the denominator, %d; give a share of at most 1", n, d)
	}
}

func (f *fraction) parts() (uint32, uint32) {
	n, d := uint32(0), uint32(100)
	set(&n, f.Numerator)
	set(&d, f.Denominator)
	return n, d
}

// pathChange is the change of path of a redirect or rewrite, or nil.
func (f *filter) pathChange() *pathChange {
	switch {
	case f.RequestRedirect != nil:
		return f.RequestRedirect.Path
	case f.URLRewrite != nil:
		return f.URLRewrite.Path
	}
	return nil
}

func buildFilters(list []filter, m metadata) []mesh.Filter {
	var out []mesh.Filter
	for _, f := range list {
		out = append(out, f.build(m))
	}
	return out
}

func (f *filter) build(m metadata) mesh.Filter {
	switch {
	case f.RequestHeaderModifier != nil:
		return mesh.Filter{RequestHeaders: f.RequestHeaderModifier.build()}
	case f.ResponseHeaderModifier != nil:
		return mesh.Filter{ResponseHeaders: f.ResponseHeaderModifier.build()}
	case f.RequestRedirect != nil:
		r := f.RequestRedirect
		out := &mesh.Redirect{Scheme: r.Scheme, Host: r.Hostname, Port: r.Port, Path: r.Path.build(), Code: 302}
		set(&out.Code, r.StatusCode)
		return mesh.Filter{Redirect: out}
	case f.URLRewrite != nil:
		return mesh.Filter{Rewrite: &mesh.Rewrite{Host: f.URLRewrite.Hostname, Path: f.URLRewrite.Path.build()}}
	}
	out := &mesh.Mirror{Backend: f.RequestMirror.BackendRef.build(m), Numerator: 100, Denominator: 100}
	set(&out.Numerator, f.RequestMirror.Percent)
	if f.RequestMirror.Fraction != nil {
		out.Numerator, out.Denominator = f.RequestMirror.Fraction.parts()
	}
	return mesh.Filter{Mirror: out}
}

func (h *headerChange) build() *mesh.HeaderChange {
	out := &mesh.HeaderChange{Remove: h.Remove}
	for _, one := range h.Set {
		out.Set = append(out.Set, mesh.Header(one))
	}
	for _, one := range h.Add {
		out.Add = append(out.Add, mesh.Header(one))
	}
	return out
}

func (p *pathChange) build() mesh.PathChange {
	if p == nil {
		return mesh.PathChange{}
	}
	return mesh.PathChange{Full: p.ReplaceFullPath, Prefix: p.ReplacePrefixMatch}
}
