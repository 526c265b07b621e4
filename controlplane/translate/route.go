package translate

import (
	"cmp"
	"fmt"
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
// goes to the service's own endpoints; with routes, only what they match goes anywhere
// (GEP-1294, "an implementation must return 404 for requests that match no rule").
func Routes(in RoutesIn) *routev3.RouteConfiguration {
	name := PortName(in.Service, in.Port)
	host := &routev3.VirtualHost{Name: name, Domains: []string{"*"}}
	for _, e := range entries(in.Attached.Routes) {
		host.Routes = append(host.Routes, in.route(e))
	}
	if len(in.Attached.Routes) == 0 {
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

// entry is one match of one rule: Envoy's unit of routing.
type entry struct {
	name  string
	match mesh.Match
	rule  *mesh.Rule
}

// entries lists the matches of all routes, the most specific first, as the Gateway API
// specification of HTTPRouteRule.matches orders them: exact path, longest path, method,
// most headers, most query parameters; then oldest route, name, order in the route. It
// leaves open where a regular expression stands; here it is between exact and prefix.
func entries(routes []*mesh.Route) []entry {
	var out []entry
	for _, r := range routes {
		for i := range r.Rules {
			rule := &r.Rules[i]
			label := cmp.Or(rule.Name, fmt.Sprint(i))
			for j, m := range rule.Matches {
				out = append(out, entry{fmt.Sprintf("%s/%s/%s/%d", r.Kind, r.Name, label, j), m, rule})
			}
		}
	}
	rank := map[mesh.MatchKind]int{mesh.Exact: 0, mesh.Regex: 1, mesh.Prefix: 2, "": 3}
	slices.SortStableFunc(out, func(a, b entry) int {
		return cmp.Or(
			cmp.Compare(rank[a.match.Path.Kind], rank[b.match.Path.Kind]),
			-cmp.Compare(len(a.match.Path.Value), len(b.match.Path.Value)),
			-cmp.Compare(present(a.match.Method), present(b.match.Method)),
			-cmp.Compare(len(a.match.Headers), len(b.match.Headers)),
			-cmp.Compare(len(a.match.Query), len(b.match.Query)),
		)
	})
	return out
}

// present is 1 where a match demands s.
func present(s string) int { return min(1, len(s)) }

func (in RoutesIn) route(e entry) *routev3.Route {
	r := &routev3.Route{Name: e.name, Match: routeMatch(e.match)}
	applyHeaders(e.rule.Filters, &headers{&r.RequestHeadersToAdd, &r.RequestHeadersToRemove, &r.ResponseHeadersToAdd, &r.ResponseHeadersToRemove})
	for _, f := range e.rule.Filters {
		if f.Redirect != nil {
			r.Action = &routev3.Route_Redirect{Redirect: redirect(f.Redirect, e.match)}
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
		if f.Mirror != nil {
			action.RequestMirrorPolicies = append(action.RequestMirrorPolicies, in.mirror(f.Mirror))
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
	for _, b := range rule.Backends {
		if b.Weight == 0 {
			continue
		}
		c := &routev3.WeightedCluster_ClusterWeight{Name: in.cluster(b), Weight: wrapperspb.UInt32(b.Weight)}
		applyHeaders(b.Filters, &headers{&c.RequestHeadersToAdd, &c.RequestHeadersToRemove, &c.ResponseHeadersToAdd, &c.ResponseHeadersToRemove})
		weighted = append(weighted, c)
	}
	switch {
	case len(weighted) == 0:
		return nil
	case len(weighted) == 1 && len(rule.Backends[0].Filters) == 0:
		action.ClusterSpecifier = &routev3.RouteAction_Cluster{Cluster: weighted[0].Name}
	default:
		action.ClusterSpecifier = &routev3.RouteAction_WeightedClusters{WeightedClusters: &routev3.WeightedCluster{Clusters: weighted}}
	}
	return action
}

func (in RoutesIn) cluster(b mesh.Backend) string {
	if b.Denied || !in.Attached.Known[Backend{b.Service, b.Port}] {
		return MissingName(b.Service, b.Port)
	}
	return PortName(b.Service, b.Port)
}

func (in RoutesIn) mirror(m *mesh.Mirror) *routev3.RouteAction_RequestMirrorPolicy {
	return &routev3.RouteAction_RequestMirrorPolicy{
		Cluster: in.cluster(m.Backend),
		RuntimeFraction: &corev3.RuntimeFractionalPercent{DefaultValue: &typev3.FractionalPercent{
			Numerator:   uint32(math.Round(float64(m.Numerator) * 1e6 / float64(max(1, m.Denominator)))),
			Denominator: typev3.FractionalPercent_MILLION,
		}},
	}
}

// safeRetries repeats what certainly did not reach an application: a connection that
// failed, a stream that the peer refused, a request not yet sent. Endpoints come and go;
// their going must not be an error.
func safeRetries() *routev3.RetryPolicy {
	return &routev3.RetryPolicy{
		RetryOn:    "connect-failure,refused-stream,reset-before-request",
		NumRetries: wrapperspb.UInt32(2),
		RetryHostPredicate: []*routev3.RetryPolicy_RetryHostPredicate{{
			Name:       "envoy.retry_host_predicates.previous_hosts",
			ConfigType: &routev3.RetryPolicy_RetryHostPredicate_TypedConfig{TypedConfig: previousHosts()},
		}},
		HostSelectionRetryMaxAttempts: 3,
	}
}

func retries(rule *mesh.Rule) *routev3.RetryPolicy {
	p := safeRetries()
	if rule.BackendTimeout > 0 {
		p.PerTryTimeout = durationpb.New(rule.BackendTimeout)
	}
	if rule.Retry == nil {
		return p
	}
	// GEP-1731: the listed codes, and connection errors, are tried again.
	p.RetryOn += ",reset,retriable-status-codes"
	for _, code := range rule.Retry.Codes {
		p.RetriableStatusCodes = append(p.RetriableStatusCodes, uint32(code))
	}
	p.NumRetries = wrapperspb.UInt32(uint32(rule.Retry.Attempts))
	if b := rule.Retry.Backoff; b > 0 {
		p.RetryBackOff = &routev3.RetryPolicy_RetryBackOff{
			BaseInterval: durationpb.New(b),
			MaxInterval:  durationpb.New(10 * b),
		}
	}
	return p
}
