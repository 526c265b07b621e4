package mesh

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

// TestEdgeOf: what is not served of Ingresses is told, with its field and its fix.
func TestEdgeOf(t *testing.T) {
	gateway := Name{"mesh", "entrance"}
	meta := func(kind Kind, namespace, name string, created int64) Meta {
		return Meta{Ref: Ref{kind, Name{namespace, name}}, Created: created}
	}
	ingress := func(namespace, name string, created int64, host, secret string, paths ...IngressPath) *Ingress {
		h := IngressHost{Name: host, Paths: paths, Field: "host"}
		if secret != "" {
			h.Secret, h.SecretField = Name{namespace, secret}, "secret"
		}
		return &Ingress{Meta: meta(KindIngress, namespace, name, created), Gateway: gateway, Hosts: []IngressHost{h}}
	}
	to := func(service string, port uint16, name string) IngressPath {
		return IngressPath{Path: StringMatch{Prefix, "/"}, Service: Name{"a", service}, Port: port, PortName: name, Field: "backend"}
	}
	s := NewStore(DefaultMeshConfig())
	var changes []Change
	for _, o := range []Object{
		&Service{Meta: meta(KindService, "a", "web", 0), Ports: []ServicePort{{Name: "http", Port: 80}, {Port: 81}}},
		&Service{Meta: meta(KindService, "a", "alias", 0), ExternalName: "example.com"},
		&Certificate{Meta: meta(KindCertificate, "a", "bad", 0), Fault: "is bad; mend it"},
		&Certificate{Meta: meta(KindCertificate, "a", "good", 0), Chain: "chain"},
		ingress("a", "first", 1, "a.example", "bad", to("web", 0, "http")),
		ingress("a", "second", 2, "a.example", "good", to("web", 81, ""), to("web", 82, "")),
		ingress("b", "thief", 3, "a.example", ""),
		ingress("a", "outside", 4, "b.example", "", to("alias", 80, ""), to("none", 80, "")),
		ingress("a", "other gateway", 0, "a.example", ""),
	} {
		if i, ok := o.(*Ingress); ok && i.Name.Name == "other gateway" {
			i.Gateway = Name{"mesh", "other"}
		}
		changes = append(changes, Set(o))
	}
	if err := s.Apply(changes, nil); err != nil {
		t.Fatal(err)
	}
	edge, faults := s.Snapshot().EdgeOf(gateway)
	var told []string
	for name, list := range faults {
		for _, f := range list {
			told = append(told, name.Name+" "+f.String())
		}
	}
	slices.Sort(told)
	want := []string{
		"first secret: Secret a/bad is bad; mend it",
		"outside backend: Service a/alias is another name of example.com; an Ingress leads to pods of the cluster only",
		"outside backend: Service a/none does not exist; create it, or correct the name",
		"second backend: Service a/web has no port 82; it has http 80, 81",
		"thief host: a.example belongs to namespace a, as Ingress a/first is older; choose another host, or move the rules there",
	}
	if !slices.Equal(told, want) {
		t.Errorf("told\n%s\nwant\n%s", strings.Join(told, "\n"), strings.Join(want, "\n"))
	}
	if len(edge.Hosts) != 2 || len(edge.Certificates) != 1 {
		t.Fatalf("%d hosts, %d certificates", len(edge.Hosts), len(edge.Certificates))
	}
	host := edge.Hosts[0]
	var ports []string
	for _, r := range host.Secure {
		for _, rule := range r.Rules {
			ports = append(ports, fmt.Sprint(r.Name.Name, " ", rule.Backends[0].Port))
		}
	}
	if host.Certificate != (Name{"a", "good"}) || fmt.Sprint(ports) != "[first 80 second 81 second 0]" {
		t.Errorf("%s by certificate %s, to ports %v", host.Name, host.Certificate, ports)
	}
	for _, r := range host.Plain {
		if len(r.Rules[0].Backends) > 0 || r.Rules[0].Filters[0].Redirect.Scheme != "https" {
			t.Errorf("in the clear: %+v", r.Rules[0])
		}
	}
}
