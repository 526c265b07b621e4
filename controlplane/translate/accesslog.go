package translate

import (
	accesslogv3 "github.com/envoyproxy/go-control-plane/envoy/config/accesslog/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	celv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/access_loggers/filters/cel/v3"
	streamlogv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/access_loggers/stream/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/protobuf/types/known/structpb"
)

var (
	connectionLogFields = map[string]string{
		"time":          "%START_TIME%",
		"duration_ms":   "%DURATION%",
		"flags":         "%RESPONSE_FLAGS%",
		"details":       "%RESPONSE_CODE_DETAILS%",
		"termination":   "%CONNECTION_TERMINATION_DETAILS%",
		"bytes_in":      "%BYTES_RECEIVED%",
		"bytes_out":     "%BYTES_SENT%",
		"source_id":     "%DOWNSTREAM_PEER_URI_SAN%",
		"upstream":      "%UPSTREAM_HOST%",
		"upstream_id":   "%UPSTREAM_PEER_URI_SAN%",
		"cluster":       "%UPSTREAM_CLUSTER%",
		"failure":       "%UPSTREAM_TRANSPORT_FAILURE_REASON%",
		"tls_failure":   "%DOWNSTREAM_TRANSPORT_FAILURE_REASON%",
		"destination":   "%DOWNSTREAM_LOCAL_ADDRESS%",
		"source":        "%DOWNSTREAM_REMOTE_ADDRESS%",
		"filter_chain":  "%FILTER_CHAIN_NAME%",
		"connection_id": "%CONNECTION_ID%",
	}
	httpLogFields = merge(connectionLogFields, map[string]string{
		"method":     "%REQ(:METHOD)%",
		"path":       "%REQ(:PATH)%",
		"authority":  "%REQ(:AUTHORITY)%",
		"protocol":   "%PROTOCOL%",
		"code":       "%RESPONSE_CODE%",
		"route":      "%ROUTE_NAME%",
		"request_id": "%REQ(X-REQUEST-ID)%",
		"trace_id":   "%TRACE_ID%",
		"grpc":       "%GRPC_STATUS_NUMBER%",
		"retries":    "%UPSTREAM_REQUEST_ATTEMPT_COUNT%",
	})
)

// handshakeLogFields tell of a caller that was not let in. What its certificate says of it
// is a claim.
var handshakeLogFields = func() map[string]string {
	fields := merge(connectionLogFields, map[string]string{"claimed_id": connectionLogFields["source_id"]})
	delete(fields, "source_id")
	return fields
}()

func merge(a, b map[string]string) map[string]string {
	out := make(map[string]string, len(a)+len(b))
	for _, m := range []map[string]string{a, b} {
		for k, v := range m {
			out[k] = v
		}
	}
	return out
}

// Callers whose handshake fails never reach the filters of an HTTP port, and so not its
// log. The listener logs them for every kind of port, and they are left out elsewhere. A
// connection that breaks later has a reason too, of the system and not of TLS.
const (
	handshakeFailed = `has(connection.transport_failure_reason) && connection.transport_failure_reason.contains("SSL routines")`
	handshakeDone   = `!(` + handshakeFailed + `)`
)

// accessLog writes one JSON object a line to the proxy's standard output, while the
// runtime says so (see Runtime) and all conditions hold, which are expressions in CEL.
func accessLog(fields map[string]string, conditions ...string) []*accesslogv3.AccessLog {
	format := &structpb.Struct{Fields: map[string]*structpb.Value{}}
	for k, v := range fields {
		format.Fields[k] = structpb.NewStringValue(v)
	}
	return []*accesslogv3.AccessLog{{
		// Not a file named /dev/stdout: whoever started Envoy may own what that leads to.
		Name:   "envoy.access_loggers.stdout",
		Filter: logFilter(conditions),
		ConfigType: &accesslogv3.AccessLog_TypedConfig{TypedConfig: message(&streamlogv3.StdoutAccessLog{
			AccessLogFormat: &streamlogv3.StdoutAccessLog_LogFormat{LogFormat: &corev3.SubstitutionFormatString{
				Format:          &corev3.SubstitutionFormatString_JsonFormat{JsonFormat: format},
				OmitEmptyValues: true,
			}},
		})},
	}}
}

func logFilter(conditions []string) *accesslogv3.AccessLogFilter {
	all := []*accesslogv3.AccessLogFilter{{FilterSpecifier: &accesslogv3.AccessLogFilter_RuntimeFilter{
		RuntimeFilter: &accesslogv3.RuntimeFilter{RuntimeKey: accessLogKey, PercentSampled: &typev3.FractionalPercent{}},
	}}}
	for _, c := range conditions {
		all = append(all, &accesslogv3.AccessLogFilter{FilterSpecifier: &accesslogv3.AccessLogFilter_ExtensionFilter{
			ExtensionFilter: &accesslogv3.ExtensionFilter{
				Name: "envoy.access_loggers.extension_filters.cel",
				ConfigType: &accesslogv3.ExtensionFilter_TypedConfig{
					TypedConfig: message(&celv3.ExpressionFilter{Expression: c}),
				},
			},
		}})
	}
	if len(all) == 1 {
		return all[0]
	}
	return &accesslogv3.AccessLogFilter{FilterSpecifier: &accesslogv3.AccessLogFilter_AndFilter{
		AndFilter: &accesslogv3.AndFilter{Filters: all},
	}}
}
