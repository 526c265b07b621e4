package translate

import (
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	previoushostsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/retry/host/previous_hosts/v3"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/heddle-mesh/heddle/controlplane/mesh"
)

// safeRetries repeats what certainly did not reach an application: a connection that
// failed, a stream that the peer refused, a request not yet sent. Endpoints come and go;
// their going must not be an error.
func safeRetries() *routev3.RetryPolicy {
	return &routev3.RetryPolicy{
		RetryOn:    "connect-failure,refused-stream,reset-before-request",
		NumRetries: wrapperspb.UInt32(2),
		RetryHostPredicate: []*routev3.RetryPolicy_RetryHostPredicate{{
			Name: "envoy.retry_host_predicates.previous_hosts",
			ConfigType: &routev3.RetryPolicy_RetryHostPredicate_TypedConfig{
				TypedConfig: message(&previoushostsv3.PreviousHostsPredicate{}),
			},
		}},
		HostSelectionRetryMaxAttempts: 3,
	}
}

// retries is a rule's policy of trying again, by HTTPRouteRetry of Gateway API (GEP-1731):
// the listed codes, what the backend refused before it worked on it (gRPC's UNAVAILABLE
// among that), and tries that took longer than backendRequest. A connection that breaks
// after the request was sent is tried again only with a backendRequest timeout: Envoy
// takes the two for one, and whoever has late tries repeated has said that the request
// may be worked on twice. Zero attempts turn off the safe retries as well.
func retries(rule *mesh.Rule) *routev3.RetryPolicy {
	p := safeRetries()
	if rule.BackendTimeout > 0 {
		p.PerTryTimeout = durationpb.New(rule.BackendTimeout)
	}
	if rule.Retry == nil {
		return p
	}
	p.RetryOn += ",unavailable,retriable-status-codes"
	if rule.BackendTimeout > 0 {
		p.RetryOn += ",reset"
	}
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
