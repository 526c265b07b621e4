package translate

import (
	"time"

	mutationv3 "github.com/envoyproxy/go-control-plane/envoy/config/common/mutation_rules/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	earlyv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/http/early_header_mutation/header_mutation/v3"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// Limits of what clients outside may do, by Envoy's advice for a proxy at the edge.
const (
	edgePatience   = 10 * time.Second // for a handshake, and for the headers of a request
	edgeStreamIdle = 5 * time.Minute  // a WebSocket that is quiet for longer needs its own pings
	edgeIdle       = time.Hour        // a connection without a request
	edgeHeaders    = 100
	edgeHeaderKiB  = 60
	edgeStreams    = 100      // at once on a connection of HTTP/2
	edgeWindow     = 64 << 10 // of one of them
	edgeConnWindow = 1 << 20  // of all of a connection's
)

// forgeable are headers by which proxies tell applications where a request came from. At
// the edge nobody's word is taken for it: they are taken away before we write our own.
// A trace begins here, too, as strangers must not decide what is sampled.
var forgeable = []string{
	"forwarded", "x-forwarded-for", "x-forwarded-host", "x-forwarded-port", "x-forwarded-prefix", "x-forwarded-proto",
	"x-forwarded-server", "x-forwarded-client-cert", "x-real-ip", "x-original-url", "x-rewrite-url",
	"x-request-id", "traceparent", "tracestate", "baggage",
}

// edgeManager makes the HTTP filter of a gateway. Unlike a sidecar it trusts no client.
func edgeManager(name string, sampling float64) *hcmv3.HttpConnectionManager {
	m := connectionManager(name, sampling)
	m.UseRemoteAddress = wrapperspb.Bool(true) // x-forwarded-for is who connects to us
	m.SkipXffAppend = false
	m.PreserveExternalRequestId = false
	// Without it clients with a private address could send Envoy's own headers.
	m.InternalAddressConfig = &hcmv3.HttpConnectionManager_InternalAddressConfig{}
	m.EarlyHeaderMutationExtensions = []*corev3.TypedExtensionConfig{withoutHeaders(forgeable)}

	// One path has one spelling, so that the rule which matches is the one that is meant.
	m.MergeSlashes = true
	m.PathWithEscapedSlashesAction = hcmv3.HttpConnectionManager_UNESCAPE_AND_REDIRECT

	m.MaxRequestHeadersKb = wrapperspb.UInt32(edgeHeaderKiB)
	m.CommonHttpProtocolOptions = &corev3.HttpProtocolOptions{
		IdleTimeout:     durationpb.New(edgeIdle),
		MaxHeadersCount: wrapperspb.UInt32(edgeHeaders),
		// To an application x_y and x-y may be the same header.
		HeadersWithUnderscoresAction: corev3.HttpProtocolOptions_REJECT_REQUEST,
	}
	m.StreamIdleTimeout = durationpb.New(edgeStreamIdle)
	m.RequestHeadersTimeout = durationpb.New(edgePatience)
	m.HttpProtocolOptions = nil // no HTTP/1.0
	m.Http2ProtocolOptions = &corev3.Http2ProtocolOptions{
		AllowConnect:                true, // WebSocket over HTTP/2; no route takes another CONNECT
		MaxConcurrentStreams:        wrapperspb.UInt32(edgeStreams),
		InitialStreamWindowSize:     wrapperspb.UInt32(edgeWindow),
		InitialConnectionWindowSize: wrapperspb.UInt32(edgeConnWindow),
	}
	return m
}

// withoutHeaders takes headers away before anything looks at a request.
func withoutHeaders(names []string) *corev3.TypedExtensionConfig {
	var mutations []*mutationv3.HeaderMutation
	for _, name := range names {
		mutations = append(mutations, &mutationv3.HeaderMutation{Action: &mutationv3.HeaderMutation_Remove{Remove: name}})
	}
	return &corev3.TypedExtensionConfig{
		Name:        "envoy.http.early_header_mutation.header_mutation",
		TypedConfig: message(&earlyv3.HeaderMutation{Mutations: mutations}),
	}
}
