package kubernetes

import (
	"fmt"
	"strings"

	networkingv1 "k8s.io/api/networking/v1"

	"github.com/heddle-mesh/heddle/controlplane/mesh"
)

// IngressClass is the class of the Ingresses that are ours.
const IngressClass = "heddle"

// Ingress converts an Ingress of our class, to be served by a gateway; nil is for those of
// other classes. What the API server allows and we cannot serve is among its faults.
func Ingress(o *networkingv1.Ingress, gateway mesh.Name) *mesh.Ingress {
	if deref(o.Spec.IngressClassName) != IngressClass {
		return nil
	}
	r := ingressReader{out: &mesh.Ingress{Meta: metaOf(mesh.KindIngress, o), Gateway: gateway}, index: map[string]int{}}
	for i, rule := range o.Spec.Rules {
		r.rule(fmt.Sprintf("spec.rules[%d]", i), rule)
	}
	if backend := o.Spec.DefaultBackend; backend != nil {
		r.host("", "spec.defaultBackend")
		for i := range r.out.Hosts {
			r.path(&r.out.Hosts[i], "spec.defaultBackend", *backend, mesh.IngressPath{Path: mesh.StringMatch{Kind: mesh.Prefix, Value: "/"}, Default: true})
		}
	}
	for i, tls := range o.Spec.TLS {
		r.tls(fmt.Sprintf("spec.tls[%d]", i), tls)
	}
	return r.out
}

// ingressReader reads an Ingress by its hosts: two rules may be of one.
type ingressReader struct {
	out   *mesh.Ingress
	index map[string]int
}

func (r *ingressReader) fault(field, format string, args ...any) {
	f := mesh.Fault{Field: field, Message: fmt.Sprintf(format, args...)}
	for _, old := range r.out.Faults {
		if old == f {
			return
		}
	}
	r.out.Faults = append(r.out.Faults, f)
}

// host gives the host of a name, which field names first.
func (r *ingressReader) host(name, field string) *mesh.IngressHost {
	i, ok := r.index[name]
	if !ok {
		i = len(r.out.Hosts)
		r.index[name] = i
		r.out.Hosts = append(r.out.Hosts, mesh.IngressHost{Name: name, Field: field})
	}
	return &r.out.Hosts[i]
}

func (r *ingressReader) rule(field string, rule networkingv1.IngressRule) {
	host := r.host(strings.ToLower(rule.Host), field+".host")
	if rule.HTTP == nil {
		return // all of the host is for the default backend
	}
	for i, p := range rule.HTTP.Paths {
		at := fmt.Sprintf("%s.http.paths[%d]", field, i)
		if strings.ContainsAny(p.Path, "?#") {
			r.fault(at+".path", "%q has more than a path; leave out what begins with ? or #", p.Path)
			continue
		}
		path := mesh.IngressPath{Path: mesh.StringMatch{Kind: mesh.Prefix, Value: p.Path}} // ImplementationSpecific, too
		if p.PathType != nil && *p.PathType == networkingv1.PathTypeExact {
			path.Path.Kind = mesh.Exact
		} else if p.Path == "" {
			path.Path.Value = "/"
		}
		r.path(host, at+".backend", p.Backend, path)
	}
}

// path adds a path of a host that leads to a backend.
func (r *ingressReader) path(host *mesh.IngressHost, field string, b networkingv1.IngressBackend, p mesh.IngressPath) {
	if b.Service == nil {
		r.fault(field+".resource", "only Services can be served; name one in %s.service", field)
		return
	}
	p.Service = mesh.Name{Namespace: r.out.Namespace, Name: b.Service.Name}
	p.Port, p.PortName, p.Field = uint16(b.Service.Port.Number), b.Service.Port.Name, field+".service"
	host.Paths = append(host.Paths, p)
}

// tls marks hosts as served over TLS, all of the Ingress where none is named.
func (r *ingressReader) tls(field string, tls networkingv1.IngressTLS) {
	if tls.SecretName == "" {
		r.fault(field+".secretName", "is empty; name a Secret of type kubernetes.io/tls in namespace %s", r.out.Namespace)
	}
	mark := func(h *mesh.IngressHost) {
		if h.Secret == (mesh.Name{}) {
			// Without a name, too: what is meant to be secret is not served in the clear.
			h.Secret, h.SecretField = mesh.Name{Namespace: r.out.Namespace, Name: tls.SecretName}, field+".secretName"
		}
	}
	if len(tls.Hosts) == 0 {
		for i := range r.out.Hosts {
			mark(&r.out.Hosts[i])
		}
	}
	for i, name := range tls.Hosts {
		if at, ok := r.index[strings.ToLower(name)]; ok {
			mark(&r.out.Hosts[at])
		} else {
			r.fault(fmt.Sprintf("%s.hosts[%d]", field, i), "no rule is for host %s; correct it, or add a rule", name)
		}
	}
}
