// Package sds gives an Envoy its workload's SVID and trust bundle by Envoy's secret
// discovery service, and pushes them again at every rotation. Envoy swaps them without
// closing connections.
//
// It is registered on the agent's Unix socket to Envoy and reads an identity/agent. It
// keeps at most one unanswered response per stream and, while that is out, skips to the
// newest state.
package sds
