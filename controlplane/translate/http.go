package translate

import (
	"math"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	tracev3 "github.com/envoyproxy/go-control-plane/envoy/config/trace/v3"
	routerv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/router/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	detectorv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/tracers/opentelemetry/resource_detectors/v3"
	samplerv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/tracers/opentelemetry/samplers/v3"
	tagv3 "github.com/envoyproxy/go-control-plane/envoy/type/tracing/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// connectionManager makes the HTTP filter of a chain, without its routes. Sampling is the
// percentage of requests that start a trace.
func connectionManager(name string, sampling float64, filters ...*hcmv3.HttpFilter) *hcmv3.HttpConnectionManager {
	return &hcmv3.HttpConnectionManager{
		StatPrefix:  name,
		CodecType:   hcmv3.HttpConnectionManager_AUTO,
		HttpFilters: append(filters, httpFilter("envoy.filters.http.router", message(&routerv3.Router{SuppressEnvoyHeaders: true}))),
		// A proxy beside the application is not an edge: it must not rewrite what the
		// application says of itself, nor add itself to x-forwarded-for.
		ServerHeaderTransformation: hcmv3.HttpConnectionManager_PASS_THROUGH,
		SkipXffAppend:              true,
		PreserveExternalRequestId:  true,
		StreamIdleTimeout:          durationpb.New(0), // streams may be quiet for as long as they like
		// HTTP/1.0 is what nginx speaks to its upstreams unless told otherwise.
		HttpProtocolOptions:  &corev3.Http1ProtocolOptions{AcceptHttp_10: true},
		Http2ProtocolOptions: &corev3.Http2ProtocolOptions{AllowConnect: true},
		UpgradeConfigs:       []*hcmv3.HttpConnectionManager_UpgradeConfig{{UpgradeType: "websocket"}},
		NormalizePath:        wrapperspb.Bool(true), // so that routes and policies see what the application will
		PathWithEscapedSlashesAction: hcmv3.
			HttpConnectionManager_KEEP_UNCHANGED,
		Tracing:   tracing(sampling),
		AccessLog: accessLog(httpLogFields),
	}
}

func httpFilter(name string, config *anypb.Any) *hcmv3.HttpFilter {
	return &hcmv3.HttpFilter{Name: name, ConfigType: &hcmv3.HttpFilter_TypedConfig{TypedConfig: config}}
}

func networkFilter(name string, config *anypb.Any) *listenerv3.Filter {
	return &listenerv3.Filter{Name: name, ConfigType: &listenerv3.Filter_TypedConfig{TypedConfig: config}}
}

// withRDS gives the connection manager routes that come by name over ADS.
func withRDS(m *hcmv3.HttpConnectionManager, routes string) *hcmv3.HttpConnectionManager {
	m.RouteSpecifier = &hcmv3.HttpConnectionManager_Rds{
		Rds: &hcmv3.Rds{ConfigSource: adsSource(), RouteConfigName: routes},
	}
	return m
}

// tracing sends spans to the agent, which knows where the collector is. The service
// name comes from the proxy's environment (OTEL_RESOURCE_ATTRIBUTES), so that the
// configuration is the same for every proxy.
func tracing(sampling float64) *hcmv3.HttpConnectionManager_Tracing {
	return &hcmv3.HttpConnectionManager_Tracing{
		// Every request gets a span, so that the tracer's sampler, and not Envoy's random
		// choice that knows no traceparent, decides which are sent.
		RandomSampling: &typev3.Percent{Value: 100},
		CustomTags: []*tagv3.CustomTag{
			tag("heddle.route", "%ROUTE_NAME%"),
			tag("heddle.source.id", "%DOWNSTREAM_PEER_URI_SAN%"),
			tag("heddle.local.id", "%DOWNSTREAM_LOCAL_URI_SAN%"),
			tag("heddle.destination.id", "%UPSTREAM_PEER_URI_SAN%"),
		},
		Provider: &tracev3.Tracing_Http{
			Name: "envoy.tracers.opentelemetry",
			ConfigType: &tracev3.Tracing_Http_TypedConfig{TypedConfig: message(&tracev3.OpenTelemetryConfig{
				GrpcService: &corev3.GrpcService{
					TargetSpecifier: &corev3.GrpcService_EnvoyGrpc_{
						EnvoyGrpc: &corev3.GrpcService_EnvoyGrpc{ClusterName: TelemetryCluster},
					},
					Timeout: durationpb.New(250e6),
				},
				Sampler: sampler(sampling),
				ResourceDetectors: []*corev3.TypedExtensionConfig{{
					Name:        "envoy.tracers.opentelemetry.resource_detectors.environment",
					TypedConfig: message(&detectorv3.EnvironmentResourceDetectorConfig{}),
				}},
			})},
		},
	}
}

// sampler keeps a caller's decision to sample (W3C Trace Context's sampled flag); for
// requests that come without one it takes a share, by the trace's id.
func sampler(percent float64) *corev3.TypedExtensionConfig {
	return &corev3.TypedExtensionConfig{
		Name: "envoy.tracers.opentelemetry.samplers.parent_based",
		TypedConfig: message(&samplerv3.ParentBasedSamplerConfig{WrappedSampler: &corev3.TypedExtensionConfig{
			Name: "envoy.tracers.opentelemetry.samplers.trace_id_ratio_based",
			TypedConfig: message(&samplerv3.TraceIdRatioBasedSamplerConfig{SamplingPercentage: &typev3.FractionalPercent{
				Numerator:   uint32(math.Round(percent * 1e4)),
				Denominator: typev3.FractionalPercent_MILLION,
			}}),
		}}),
	}
}

func tag(name, format string) *tagv3.CustomTag {
	return &tagv3.CustomTag{Tag: name, Type: &tagv3.CustomTag_Value{Value: format}}
}
