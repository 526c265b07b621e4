// Package xds is Heddle's delta ADS server: it keeps encoded xDS resources in a
// [Cache] and brings every connected Envoy to the cache's newest state, in an order
// that never breaks traffic (make before break).
//
// The package knows resources, not meshes. The pipeline fills the cache with
// [Cache.Update]; [Server] serves it over gRPC; [Stream] is the bookkeeping of one
// client, a state machine without I/O or clock. Nobody keeps a queue per client: a
// stream remembers one revision and asks the cache what changed since.
//
// A proxy may be served everything by its wildcards, or on demand: what belongs to groups
// (services, to the pipeline) then comes when the client asks for something of theirs by
// name, and the whole of it comes in an order in which it works at once: what leads to a
// listener after that listener and its routes.
//
// Protocol: https://www.envoyproxy.io/docs/envoy/latest/api-docs/xds_protocol,
// incremental (delta) variant, aggregated. State of the world is not served.
package xds
