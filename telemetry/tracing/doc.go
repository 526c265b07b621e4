// Package tracing takes spans to the collector: those that our own processes
// make (Start), and those that an Envoy hands to its agent (Forwarder), which
// can reach the collector when Envoy, in its own network namespace, cannot. It
// also writes the configuration of the Jaeger of examples and tests. What
// Envoy traces, and how often, is set by controlplane/translate.
package tracing
