// Package relay is the agent's place between Envoy and the control plane.
//
// [Relay] is the ADS server that Envoy talks to. While the control plane is there it
// passes messages both ways and remembers, on disk too, what Envoy has ACKed. While it
// is away, Envoy's streams are served from that memory, so that an Envoy that starts
// meanwhile comes back with its last good configuration. [Watch] does the same for one
// type that the agent itself uses, such as the table of DNS names.
//
// The agent makes and runs these; the control plane's end is controlplane/xds, whose
// cache and server also do the remembering and the local service here.
package relay
