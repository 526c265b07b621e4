// Package envoy knows the Envoy program: where to get it, which version it is,
// whether it accepts a configuration, and how to talk to a running one through
// its admin interface. It does not start or watch Envoy (proxy/supervise) or
// write its configuration (proxy/bootstrap, controlplane/translate).
package envoy
