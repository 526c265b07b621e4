package controlplane

import (
	"reflect"
	"slices"

	"github.com/heddle-mesh/heddle/controlplane/mesh"
	"github.com/heddle-mesh/heddle/controlplane/translate"
	"github.com/heddle-mesh/heddle/controlplane/xds"
)

// GatewayVariant is for the proxies of a gateway, and what is of both families for those
// that have both.
func GatewayVariant(name mesh.Name, ipv6 bool) string {
	if ipv6 {
		return "gateway/" + name.String() + "/dual"
	}
	return "gateway/" + name.String()
}

// gateway wants what the proxies of a gateway serve, the same for all of them. The
// clusters behind it are those that sidecars have.
func (b *build) gateway(g *mesh.Gateway) {
	found, _ := b.snapshot.EdgeOf(g.Name)
	edge := keep(b, "edge", 0, found, sameEdge)
	variant := GatewayVariant(g.Name, false)
	for _, c := range edge.Certificates {
		want(b, xds.Key{Type: translate.SecretType, Name: translate.CertificateName(c.Name), Variant: variant},
			translate.CertificateIn{Certificate: c}, translate.Certificate, []mesh.Object{g, c})
	}
	plain := xds.Key{Type: translate.RoutesType, Name: translate.GatewayPlain}
	var secure []xds.Key
	all := []mesh.Object{g}
	for _, h := range edge.Hosts {
		all = b.with(all, h.Plain)
	}
	want(b, withVariant(plain, variant), translate.GatewayRoutesIn{Edge: edge}, translate.GatewayRoutes, all)
	for _, h := range translate.SecureHosts(edge) {
		key := xds.Key{Type: translate.RoutesType, Name: translate.GatewaySecureName(h.Name)}
		secure = append(secure, key)
		want(b, withVariant(key, variant), translate.GatewayRoutesIn{Edge: edge, Host: h.Name}, translate.GatewaySecureRoutes,
			b.with([]mesh.Object{g}, h.Secure))
	}
	for _, ipv6 := range []bool{false, true} {
		in := translate.GatewayIn{Edge: edge, IPv6: ipv6, TraceSampling: b.snapshot.Config.TraceSampling}
		variant := GatewayVariant(g.Name, ipv6)
		want(b, xds.Key{Type: translate.ListenerType, Name: translate.GatewayPlain, Variant: variant}, in, translate.GatewayListener, []mesh.Object{g}, plain)
		want(b, xds.Key{Type: translate.ListenerType, Name: translate.GatewaySecure, Variant: variant}, in, translate.GatewaySecureListener, all, secure...)
	}
}

func withVariant(k xds.Key, variant string) xds.Key {
	k.Variant = variant
	return k
}

// with adds to objects those that routes of an edge were made of, each once.
func (b *build) with(objects []mesh.Object, routes []*mesh.Route) []mesh.Object {
	for _, r := range routes {
		if o := b.snapshot.Get(r.Ref); o != nil && !slices.Contains(objects, o) {
			objects = append(objects, o)
		}
	}
	return objects
}

func sameEdge(a, b *mesh.Edge) bool { return reflect.DeepEqual(a, b) }
