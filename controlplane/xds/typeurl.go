package xds

// Type URLs of the resources whose order matters to Envoy, and of some others that
// need a rule of their own.
const (
	ClusterType  = "type.googleapis.com/envoy.config.cluster.v3.Cluster"
	EndpointType = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment"
	ListenerType = "type.googleapis.com/envoy.config.listener.v3.Listener"
	RouteType    = "type.googleapis.com/envoy.config.route.v3.RouteConfiguration"
	SecretType   = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret"

	virtualHostType = "type.googleapis.com/envoy.config.route.v3.VirtualHost"
	scopedRouteType = "type.googleapis.com/envoy.config.route.v3.ScopedRouteConfiguration"
)

// addOrder is the make-before-break order of additions and changes, removeOrder that
// of removals, which come after all additions ("Eventual consistency considerations"
// in the xDS protocol). Types that are in neither are independent.
var (
	addOrder    = [...]string{ClusterType, EndpointType, ListenerType, RouteType}
	removeOrder = [...]string{ListenerType, RouteType, ClusterType, EndpointType}
)

func ordered(typ string) bool {
	for _, t := range addOrder {
		if t == typ {
			return true
		}
	}
	return false
}

// emptyMeansAll tells whether a first request without names subscribes to everything.
// Envoy may open a reconnected stream with an empty EDS or RDS request when it holds
// none of that type; taking that for a wildcard would send it the whole mesh.
func emptyMeansAll(typ string) bool {
	switch typ {
	case EndpointType, RouteType, SecretType, virtualHostType, scopedRouteType:
		return false
	}
	return true
}

// answersAbsent tells whether a subscription to a name that does not exist is answered
// with removed_resources at once. On-demand CDS turns that into an immediate 503, EDS
// into a cluster that is warm with no endpoints. Envoy logs an error for such an RDS
// answer and would reject one for SDS; there the client waits for the resource.
func answersAbsent(typ string) bool {
	switch typ {
	case ListenerType, RouteType, SecretType, virtualHostType, scopedRouteType:
		return false
	}
	return true
}
