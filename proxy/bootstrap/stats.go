package bootstrap

import (
	metricsv3 "github.com/envoyproxy/go-control-plane/envoy/config/metrics/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// Envoy would keep some hundred statistics a cluster, which is a third of the
// memory of a cluster. These lists name those that somebody reads: dashboards,
// "heddle check", alerts. A statistic is kept if a line of either matches it.

// statPrefixes are kept whole: few, and not one set per cluster.
var statPrefixes = []string{
	"server.", "cluster_manager.", "listener_manager.", "control_plane.", "overload.", "tracing.", "sds.", "workers.",
	"mesh.", // per-peer counters of the stats access logger
	"cluster.agent.upstream_cx", "cluster.otlp.upstream_rq",
}

// statSuffixes are kept of every cluster, HTTP connection manager, TCP proxy
// and listener.
var statSuffixes = []string{
	// Rate, errors and duration on the client's side of a cluster ...
	".upstream_rq_total", ".upstream_rq_time", ".upstream_rq_active",
	".upstream_rq_1xx", ".upstream_rq_2xx", ".upstream_rq_3xx", ".upstream_rq_4xx", ".upstream_rq_5xx",
	".upstream_rq_timeout", ".upstream_rq_per_try_timeout", ".upstream_rq_rx_reset", ".upstream_rq_tx_reset",
	// ... retries and what gave up ...
	".upstream_rq_retry", ".upstream_rq_retry_success", ".upstream_rq_retry_overflow", ".upstream_rq_retry_limit_exceeded",
	".upstream_rq_pending_overflow", ".upstream_rq_pending_failure_eject", ".upstream_rq_maintenance_mode",
	// ... and its connections.
	".upstream_cx_total", ".upstream_cx_active", ".upstream_cx_connect_fail", ".upstream_cx_connect_timeout",
	".upstream_cx_overflow", ".upstream_cx_destroy_remote_with_active_rq", ".upstream_cx_none_healthy",
	".upstream_cx_rx_bytes_total", ".upstream_cx_tx_bytes_total",
	// Endpoints: how many, how healthy, taken from which zone.
	".membership_total", ".membership_healthy", ".lb_healthy_panic",
	".outlier_detection.ejections_active", ".outlier_detection.ejections_enforced_total",
	".lb_zone_routing_cross_zone", ".lb_zone_routing_all_directly", ".lb_zone_routing_sampled",
	// The server's side: HTTP ...
	".downstream_rq_total", ".downstream_rq_time", ".downstream_rq_active",
	".downstream_rq_1xx", ".downstream_rq_2xx", ".downstream_rq_3xx", ".downstream_rq_4xx", ".downstream_rq_5xx",
	".downstream_rq_timeout", ".downstream_rq_overload_close",
	// ... TCP and listeners.
	".downstream_cx_total", ".downstream_cx_active", ".downstream_cx_rx_bytes_total", ".downstream_cx_tx_bytes_total",
	".downstream_cx_no_route", ".downstream_cx_overflow", ".downstream_cx_overload_reject", ".downstream_global_cx_overflow",
	".downstream_cx_transport_socket_connect_timeout", ".no_filter_chain_match",
	// Mutual TLS: handshakes, and why they were refused.
	".ssl.handshake", ".ssl.connection_error", ".ssl.no_certificate", ".ssl.fail_verify_no_cert",
	".ssl.fail_verify_error", ".ssl.fail_verify_san", ".ssl.fail_verify_cert_hash",
	// Authorization.
	".rbac.allowed", ".rbac.denied", ".rbac.shadow_allowed", ".rbac.shadow_denied",
	// xDS: what was refused.
	".update_success", ".update_rejected", ".update_failure", ".init_fetch_timeout", ".warming_state",
	// On demand discovery.
	".on_demand_cluster_attempt", ".on_demand_cluster_missing", ".on_demand_cluster_success", ".on_demand_cluster_timeout",
}

// statTags turn parts of a statistic's name into labels. Envoy's own list is
// not used, because it takes a cluster's name to end at its first dot, while
// ours, SERVICE.NAMESPACE:PORT, go on to the port (Envoy writes "_" for ":").
// The first group is cut out of the name, the second is the label's value.
var statTags = []struct{ name, regex string }{
	{"envoy.cluster_name", `^cluster\.((.+?_\d+|[^.]+)\.)`},
	{"envoy.listener_address", `^listener\.((.+?_\d+|[^.]+)\.)`},
	{"envoy.http_conn_manager_prefix", `^http\.((.+?_\d+|[^.]+)\.)`},
	{"envoy.tcp_prefix", `^tcp\.((.+?_\d+|[^.]+)\.)`},
	{"envoy.response_code", `_rq(_(\d{3}))$`},
	{"envoy.response_code_class", `_rq(_(\d)xx)$`},
	{"envoy.worker_id", `^(?:server|listener_manager)\.(worker_(\d+)\.)`},
}

func statsConfig() *metricsv3.StatsConfig {
	var patterns []*matcherv3.StringMatcher
	for _, prefix := range statPrefixes {
		patterns = append(patterns, &matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_Prefix{Prefix: prefix}})
	}
	for _, suffix := range statSuffixes {
		patterns = append(patterns, &matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_Suffix{Suffix: suffix}})
	}
	var tags []*metricsv3.TagSpecifier
	for _, tag := range statTags {
		tags = append(tags, &metricsv3.TagSpecifier{TagName: tag.name, TagValue: &metricsv3.TagSpecifier_Regex{Regex: tag.regex}})
	}
	return &metricsv3.StatsConfig{
		UseAllDefaultTags: wrapperspb.Bool(false),
		StatsTags:         tags,
		StatsMatcher: &metricsv3.StatsMatcher{StatsMatcher: &metricsv3.StatsMatcher_InclusionList{
			InclusionList: &matcherv3.ListStringMatcher{Patterns: patterns},
		}},
	}
}
