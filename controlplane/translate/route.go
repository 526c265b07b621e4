package translate

import (
	"math"
	"slices"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/heddle-mesh/heddle/controlplane/mesh"
)

// Attached is an immutable list of the routes that a port of a service obeys, the oldest
// first, and of the backends they may use. As with Members, one pointer is one value.
type Attached struct {
	Routes []*mesh.Route
	// Known are the ports that exist among those the routes name. Any other backend
	// answers 500.
	Known map[Backend]bool
}

// Backend is one port of a service that a route names.
type Backend struct {
	Service mesh.Name
	Port    uint16
}

// RoutesIn is what the routes of a service's port are made of.
type RoutesIn struct {
	Service  mesh.Name
	Port     uint16
	Attached *Attached
}

// Routes makes the route configuration of a service's port. Without routes everything
// goes to the service's own endpoints; with routes, only what they match goes anywhere,
// and the rest is answered with 404 (HTTPRouteRule.matches).
func Routes(in RoutesIn) *routev3.RouteConfiguration {
	name := PortName(in.Service, in.Port)
	host := &routev3.VirtualHost{Name: name, Domains: []string{"*"}}
	routes := in.applied()
	for _, e := range entries(routes) {
		host.Routes = append(host.Routes, in.routes(e)...)
	}
	if len(routes) == 0 {
		host.Routes = []*routev3.Route{{
			Name:  "Service/" + in.Service.String(),
			Match: &routev3.RouteMatch{PathSpecifier: &routev3.RouteMatch_Prefix{Prefix: "/"}},
			Action: &routev3.Route_Route{Route: &routev3.RouteAction{
				ClusterSpecifier: &routev3.RouteAction_Cluster{Cluster: name},
				Timeout:          durationpb.New(0),
				RetryPolicy:      safeRetries(),
			}},
		}}
	}
	return &routev3.RouteConfiguration{Name: name, VirtualHosts: []*routev3.VirtualHost{host}}
}

// applied are the routes that count, by GEP-1294. A route of another namespace than the
// service's may not say how everybody reaches it ("producer" rules are for the service's
// own namespace), and where routes of both kinds are attached only the GRPCRoutes apply.
func (in RoutesIn) applied() []*mesh.Route {
	var http, grpc []*mesh.Route
	for _, r := range in.Attached.Routes {
		switch {
		case r.Namespace != in.Service.Namespace:
		case r.Kind == mesh.KindGRPCRoute:
			grpc = append(grpc, r)
		default:
			http = append(http, r)
		}
	}
	if len(grpc) > 0 {
		return grpc
	}
	return http
}

// routes makes Envoy's routes of an entry. Envoy rewrites paths and mirrors by route, and
// not by cluster: where a rule's backends want either each for itself, every backend gets
// a route with its share of the requests. Envoy draws one number a request and compares
// all shares with that, so the shares add up.
func (in RoutesIn) routes(e entry) []*routev3.Route {
	parts, total := apart(e.rule)
	if parts == nil {
		return []*routev3.Route{in.route(e)}
	}
	var out []*routev3.Route
	below := uint64(0)
	for i, part := range parts {
		r := in.route(entry{e.name, e.match, part})
		below += uint64(part.Backends[0].Weight)
		if i < len(parts)-1 { // the last one takes what is left
			r.Match.RuntimeFraction = millionths(float64(below), float64(total))
		}
		out = append(out, r)
	}
	return out
}

// apart gives a rule for each weighted backend, and the sum of the weights; or nil where
// one route can do it.
func apart(rule *mesh.Rule) (parts []*mesh.Rule, total uint64) {
	needed := false
	for _, b := range rule.Backends {
		if b.Weight == 0 {
			continue
		}
		part := *rule
		part.Filters = slices.Clone(rule.Filters)
		own := b
		own.Filters = nil
		for _, f := range b.Filters {
			if f.Rewrite != nil || f.Mirror != nil {
				part.Filters = append(part.Filters, f)
				needed = true
			} else {
				own.Filters = append(own.Filters, f)
			}
		}
		part.Backends = []mesh.Backend{own}
		parts = append(parts, &part)
		total += uint64(b.Weight)
	}
	if !needed {
		return nil, 0
	}
	return parts, total
}

func (in RoutesIn) route(e entry) *routev3.Route {
	r := &routev3.Route{Name: e.name, Match: routeMatch(e.match)}
	if !ownFilters(e.rule) {
		applyHeaders(e.rule.Filters, &headers{&r.RequestHeadersToAdd, &r.RequestHeadersToRemove, &r.ResponseHeadersToAdd, &r.ResponseHeadersToRemove})
	}
	for _, f := range e.rule.Filters {
		if f.Redirect != nil {
			r.Action = &routev3.Route_Redirect{Redirect: redirect(f.Redirect, e.match, in.Port)}
			return r
		}
	}
	action := in.action(e.rule)
	if action == nil {
		r.Action = &routev3.Route_DirectResponse{DirectResponse: &routev3.DirectResponseAction{Status: 500}}
		return r
	}
	for _, f := range e.rule.Filters {
		if f.Rewrite != nil {
			rewrite(action, f.Rewrite, e.match)
		}
		if f.Mirror != nil && in.usable(f.Mirror.Backend) { // else nobody to copy to, and no error either
			action.RequestMirrorPolicies = append(action.RequestMirrorPolicies, mirror(f.Mirror))
		}
	}
	r.Action = &routev3.Route_Route{Route: action}
	return r
}

// action makes the forwarding part of a rule, or nil where no backend has any weight:
// such a rule answers 500.
func (in RoutesIn) action(rule *mesh.Rule) *routev3.RouteAction {
	action := &routev3.RouteAction{
		Timeout:                     durationpb.New(rule.RequestTimeout), // 0 = no bound, as Gateway API has it
		ClusterNotFoundResponseCode: routev3.RouteAction_INTERNAL_SERVER_ERROR,
		RetryPolicy:                 retries(rule),
	}
	var weighted []*routev3.WeightedCluster_ClusterWeight
	own := ownFilters(rule)
	for _, b := range rule.Backends {
		if b.Weight == 0 {
			continue
		}
		c := &routev3.WeightedCluster_ClusterWeight{Name: in.cluster(b), Weight: wrapperspb.UInt32(b.Weight)}
		if own {
			applyHeaders(slices.Concat(rule.Filters, b.Filters), &headers{&c.RequestHeadersToAdd, &c.RequestHeadersToRemove, &c.ResponseHeadersToAdd, &c.ResponseHeadersToRemove})
		}
		weighted = append(weighted, c)
	}
	switch {
	case len(weighted) == 0:
		return nil
	case len(weighted) == 1 && !own:
		action.ClusterSpecifier = &routev3.RouteAction_Cluster{Cluster: weighted[0].Name}
	default:
		action.ClusterSpecifier = &routev3.RouteAction_WeightedClusters{WeightedClusters: &routev3.WeightedCluster{Clusters: weighted}}
	}
	return action
}

// ownFilters reports whether a backend that gets requests has filters of its own. Envoy
// changes headers for the cluster first and for the route last, and Gateway API means the
// rule's filters to come first: then all changes are made for the clusters.
func ownFilters(rule *mesh.Rule) bool {
	return slices.ContainsFunc(rule.Backends, func(b mesh.Backend) bool { return b.Weight > 0 && len(b.Filters) > 0 })
}

// usable reports whether a backend exists and the route may refer to it.
func (in RoutesIn) usable(b mesh.Backend) bool {
	return !b.Denied && in.Attached.Known[Backend{b.Service, b.Port}]
}

func (in RoutesIn) cluster(b mesh.Backend) string {
	if !in.usable(b) {
		return MissingName(b.Service, b.Port)
	}
	return PortName(b.Service, b.Port)
}

func mirror(m *mesh.Mirror) *routev3.RouteAction_RequestMirrorPolicy {
	return &routev3.RouteAction_RequestMirrorPolicy{
		Cluster:         PortName(m.Backend.Service, m.Backend.Port),
		RuntimeFraction: millionths(float64(m.Numerator), float64(max(1, m.Denominator))),
		// The copy is the request as it was, not one to HOST-shadow.
		DisableShadowHostSuffixAppend: true,
	}
}

func millionths(part, whole float64) *corev3.RuntimeFractionalPercent {
	return &corev3.RuntimeFractionalPercent{DefaultValue: &typev3.FractionalPercent{
		Numerator:   uint32(math.Round(part / whole * 1e6)),
		Denominator: typev3.FractionalPercent_MILLION,
	}}
}
