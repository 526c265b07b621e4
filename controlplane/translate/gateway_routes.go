package translate

import (
	"regexp"
	"slices"
	"strings"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/heddle-mesh/heddle/controlplane/mesh"
)

// GatewayRoutesIn is what the routes of a gateway's listener are made of.
type GatewayRoutesIn struct {
	Edge *mesh.Edge
	Host string // of the routes for TLS
}

// GatewayRoutes makes the routes for requests in the clear. What no host and no path has
// leads nowhere: the answer is 404.
func GatewayRoutes(in GatewayRoutesIn) *routev3.RouteConfiguration {
	out := gatewayRoutes(GatewayPlain)
	for _, h := range in.Edge.Hosts {
		out.VirtualHosts = append(out.VirtualHosts, virtualHost(h.Name, h.Plain))
	}
	return out
}

// GatewaySecureRoutes makes the routes of a host over TLS. The connection was made for that
// host, with its certificate; requests for others are asked to make their own (421).
func GatewaySecureRoutes(in GatewayRoutesIn) *routev3.RouteConfiguration {
	out := gatewayRoutes(GatewaySecureName(in.Host))
	var others []string
	for _, h := range in.Edge.Hosts {
		if h.Name == in.Host {
			out.VirtualHosts = append(out.VirtualHosts, virtualHost(h.Name, h.Secure))
		} else if h.Name != "" {
			others = append(others, h.Name)
		}
	}
	if in.Host != "" {
		others = append(others, "*")
	}
	if len(others) > 0 {
		out.VirtualHosts = append(out.VirtualHosts, &routev3.VirtualHost{
			Name: "|misdirected", Domains: others, // no host has such a name
			Routes: []*routev3.Route{{
				Name:   "misdirected",
				Match:  &routev3.RouteMatch{PathSpecifier: &routev3.RouteMatch_Prefix{Prefix: "/"}},
				Action: &routev3.Route_DirectResponse{DirectResponse: &routev3.DirectResponseAction{Status: 421}},
			}},
		})
	}
	return out
}

func gatewayRoutes(name string) *routev3.RouteConfiguration {
	return &routev3.RouteConfiguration{
		Name: name,
		// A listener must not be refused because a cluster is a moment late.
		ValidateClusters:         wrapperspb.Bool(false),
		IgnorePortInHostMatching: true, // the ports of the Service, which are not ours, are in Host
	}
}

// virtualHost makes the routes of a host.
func virtualHost(host string, routes []*mesh.Route) *routev3.VirtualHost {
	out := &routev3.VirtualHost{Name: host, Domains: []string{host}}
	if host == "" {
		out.Name, out.Domains = "*", []string{"*"}
	}
	in := RoutesIn{Port: 80, Attached: edgeAttached(routes)} // 80: no port in a Location that the scheme says
	for _, e := range entries(routes) {
		for _, r := range in.routes(e) {
			if domain, ok := strings.CutPrefix(host, "*."); ok {
				r.Match.Headers = append(r.Match.Headers, oneLabel(domain))
			}
			out.Routes = append(out.Routes, r)
		}
	}
	return out
}

// edgeAttached has the backends that exist, which are those with a port.
func edgeAttached(routes []*mesh.Route) *Attached {
	out := &Attached{Routes: routes, Known: map[Backend]bool{}}
	for _, r := range routes {
		for _, b := range r.Backends() {
			if b.Port != 0 {
				out.Known[Backend{b.Service, b.Port}] = true
			}
		}
	}
	return out
}

// oneLabel takes hosts with one label more than a domain. Envoy's own wildcard takes any
// number of them.
func oneLabel(domain string) *routev3.HeaderMatcher {
	return &routev3.HeaderMatcher{
		Name:                 ":authority",
		HeaderMatchSpecifier: &routev3.HeaderMatcher_StringMatch{StringMatch: regexMatch(`(?i)[^.:]+\.` + regexp.QuoteMeta(domain) + `(:[0-9]+)?`)},
	}
}

// SecureHosts are the hosts of an edge that are served over TLS.
func SecureHosts(e *mesh.Edge) []mesh.EdgeHost {
	return slices.DeleteFunc(slices.Clone(e.Hosts), func(h mesh.EdgeHost) bool { return h.Certificate == mesh.Name{} })
}
