package kubernetes

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	networkingv1 "k8s.io/api/networking/v1"
	"sigs.k8s.io/yaml"

	"github.com/heddle-mesh/heddle/controlplane/mesh"
)

// TestIngress: what the API server allows of an Ingress is read or told.
func TestIngress(t *testing.T) {
	gateway := mesh.Name{Namespace: "heddle-system", Name: "heddle-ingress"}
	web := func(kind mesh.MatchKind, path, field string) mesh.IngressPath {
		return mesh.IngressPath{Path: mesh.StringMatch{Kind: kind, Value: path}, Service: mesh.Name{Namespace: "shop", Name: "web"}, Port: 80, Field: field}
	}
	asDefault := func(p mesh.IngressPath) mesh.IngressPath { p.Default = true; return p }
	const backend = "backend: {service: {name: web, port: {number: 80}}}"
	for _, c := range []struct {
		name, spec string
		hosts      []mesh.IngressHost
		faults     []mesh.Fault
	}{
		{
			"two rules of one host", "rules: [{host: a.example, http: {paths: [{path: /a, pathType: Exact, " + backend + "}]}}, {host: a.example, http: {paths: [{pathType: ImplementationSpecific, " + backend + "}]}}]",
			[]mesh.IngressHost{{Name: "a.example", Field: "spec.rules[0].host", Paths: []mesh.IngressPath{
				web(mesh.Exact, "/a", "spec.rules[0].http.paths[0].backend.service"), web(mesh.Prefix, "/", "spec.rules[1].http.paths[0].backend.service"),
			}}}, nil,
		},
		{
			"a default backend", "{rules: [{host: a.example}], defaultBackend: {service: {name: web, port: {number: 80}}}}",
			[]mesh.IngressHost{
				{Name: "a.example", Field: "spec.rules[0].host", Paths: []mesh.IngressPath{asDefault(web(mesh.Prefix, "/", "spec.defaultBackend.service"))}},
				{Name: "", Field: "spec.defaultBackend", Paths: []mesh.IngressPath{asDefault(web(mesh.Prefix, "/", "spec.defaultBackend.service"))}},
			}, nil,
		},
		{
			"TLS for all", "{rules: [{host: a.example}], tls: [{secretName: all}]}",
			[]mesh.IngressHost{{Name: "a.example", Field: "spec.rules[0].host", Secret: mesh.Name{Namespace: "shop", Name: "all"}, SecretField: "spec.tls[0].secretName"}}, nil,
		},
		{
			"TLS without a Secret and of a host without a rule", "{rules: [{host: a.example}], tls: [{hosts: [a.example, b.example]}]}",
			[]mesh.IngressHost{{Name: "a.example", Field: "spec.rules[0].host", Secret: mesh.Name{Namespace: "shop"}, SecretField: "spec.tls[0].secretName"}},
			[]mesh.Fault{
				{Field: "spec.tls[0].secretName", Message: "is empty; name a Secret of type kubernetes.io/tls in namespace shop"},
				{Field: "spec.tls[0].hosts[1]", Message: "no rule is for host b.example; correct it, or add a rule"},
			},
		},
		{
			"what Envoy does not take for a path, and what is no Service",
			"rules: [{http: {paths: [{path: \"/a?b\", pathType: Exact, " + backend + "}, {path: /s, pathType: Prefix, backend: {resource: {kind: Bucket, name: b}}}]}}]",
			[]mesh.IngressHost{{Name: "", Field: "spec.rules[0].host"}},
			[]mesh.Fault{
				{Field: "spec.rules[0].http.paths[0].path", Message: `"/a?b" has more than a path; leave out what begins with ? or #`},
				{Field: "spec.rules[0].http.paths[1].backend.resource", Message: "only Services can be served; name one in spec.rules[0].http.paths[1].backend.service"},
			},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			o := new(networkingv1.Ingress)
			if err := yaml.UnmarshalStrict([]byte(c.spec), &o.Spec); err != nil {
				t.Fatal(err)
			}
			o.Namespace, o.Name = "shop", "i"
			if Ingress(o, gateway) != nil {
				t.Error("without a class it is taken for ours")
			}
			class := IngressClass
			o.Spec.IngressClassName = &class
			got := Ingress(o, gateway)
			want := &mesh.Ingress{Meta: got.Meta, Gateway: gateway, Hosts: c.hosts, Faults: c.faults}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}
