package bootstrap

import (
	bootstrapoverloadv3 "github.com/envoyproxy/go-control-plane/envoy/config/overload/v3"
	connectionsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/resource_monitors/downstream_connections/v3"
	heapv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/resource_monitors/fixed_heap/v3"
	"google.golang.org/protobuf/types/known/durationpb"
)

const (
	heapMonitor        = "envoy.resource_monitors.fixed_heap"
	connectionsMonitor = "envoy.resource_monitors.global_downstream_max_connections"
)

// overloadManager bounds what clients can make Envoy hold. Near the heap limit it
// first gives free memory back, then stops keeping HTTP/1 connections, then
// answers 503 to new requests: an Envoy killed for its memory would drop them
// all. Connections above their limit are closed at once, which needs no action.
func overloadManager(c Config) *bootstrapoverloadv3.OverloadManager {
	return &bootstrapoverloadv3.OverloadManager{
		RefreshInterval: durationpb.New(250e6),
		ResourceMonitors: []*bootstrapoverloadv3.ResourceMonitor{
			{
				Name: heapMonitor,
				ConfigType: &bootstrapoverloadv3.ResourceMonitor_TypedConfig{
					TypedConfig: pack(&heapv3.FixedHeapConfig{MaxHeapSizeBytes: c.MaxHeap})},
			},
			{
				Name: connectionsMonitor,
				ConfigType: &bootstrapoverloadv3.ResourceMonitor_TypedConfig{
					TypedConfig: pack(&connectionsv3.DownstreamConnectionsConfig{MaxActiveDownstreamConnections: int64(c.MaxConnections)})},
			},
		},
		Actions: []*bootstrapoverloadv3.OverloadAction{
			aboveHeap("envoy.overload_actions.shrink_heap", 0.85),
			aboveHeap("envoy.overload_actions.disable_http_keepalive", 0.92),
			aboveHeap("envoy.overload_actions.stop_accepting_requests", 0.97),
		},
	}
}

// aboveHeap takes an action while the heap is above a part of its limit.
func aboveHeap(action string, part float64) *bootstrapoverloadv3.OverloadAction {
	return &bootstrapoverloadv3.OverloadAction{
		Name: action,
		Triggers: []*bootstrapoverloadv3.Trigger{{
			Name: heapMonitor,
			TriggerOneof: &bootstrapoverloadv3.Trigger_Threshold{
				Threshold: &bootstrapoverloadv3.ThresholdTrigger{Value: part},
			},
		}},
	}
}
