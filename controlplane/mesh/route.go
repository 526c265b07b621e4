package mesh

import "time"

// Route is an HTTPRoute or a GRPCRoute attached to services, the mesh use of Gateway
// API (GAMMA, GEP-1294). Both kinds have one shape here; a GRPCRoute's method matches
// are path matches.
type Route struct {
	Meta
	Parents []Parent
	Rules   []Rule
}

// Parent is a service that a route attaches to.
type Parent struct {
	Service Name
	Port    uint16 // 0 = every port of the service
}

// Rule is one rule of a route: any of Matches leads to Backends.
type Rule struct {
	Name     string
	Matches  []Match // never empty: a rule without matches matches everything
	Filters  []Filter
	Backends []Backend
	// RequestTimeout bounds the whole exchange, BackendTimeout one try. 0 = unset.
	RequestTimeout, BackendTimeout time.Duration
	Retry                          *Retry
}

// Retry is Gateway API's HTTPRouteRetry (GEP-1731).
type Retry struct {
	Attempts int
	Codes    []int
	Backoff  time.Duration // the least wait between tries; 0 = the proxy's default of 25 ms
}

// MatchKind says how a value is compared.
type MatchKind string

// The kinds of comparison. Prefix is by path segment, as Gateway API's PathPrefix is.
const (
	Exact  MatchKind = "Exact"
	Prefix MatchKind = "PathPrefix"
	Regex  MatchKind = "RegularExpression"
)

// Match is a condition on a request; all of its parts must hold.
type Match struct {
	Path    StringMatch // Kind "" = any path
	Method  string      // "" = any
	Headers []NamedMatch
	Query   []NamedMatch
}

// StringMatch compares one string.
type StringMatch struct {
	Kind  MatchKind
	Value string
}

// NamedMatch compares the header or query parameter Name.
type NamedMatch struct {
	Name string
	StringMatch
}

// Backend is a weighted destination of a rule.
type Backend struct {
	Service Name
	Port    uint16
	Weight  uint32
	Filters []Filter
	// Denied is set where a reference crosses namespaces without a ReferenceGrant.
	Denied bool
}

// Filter changes a request or a response. Exactly one of its fields is set.
type Filter struct {
	RequestHeaders  *HeaderChange
	ResponseHeaders *HeaderChange
	Redirect        *Redirect
	Rewrite         *Rewrite
	Mirror          *Mirror
}

// HeaderChange sets, adds and removes headers, in this order.
type HeaderChange struct {
	Set, Add []Header
	Remove   []string
}

// Header is a name and a value.
type Header struct{ Name, Value string }

// PathChange replaces a path. At most one of its fields is set.
type PathChange struct {
	Full   *string
	Prefix *string // replaces the matched prefix
}

// Redirect answers with a redirection and asks no backend.
type Redirect struct {
	Scheme, Host string // "" = as the request has it
	Port         uint16 // 0 = by the scheme
	Path         PathChange
	Code         int // 301, 302, 303, 307 or 308
}

// Rewrite changes what the backend sees.
type Rewrite struct {
	Host string // "" = as the request has it
	Path PathChange
}

// Mirror copies a share of the requests to another service and drops its answers.
type Mirror struct {
	Backend Backend
	// Numerator of Denominator requests are copied.
	Numerator, Denominator uint32
}
