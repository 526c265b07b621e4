// Package translate turns values of the mesh into Envoy messages.
//
// Every translator is a pure function of one comparable struct: it sees nothing else, so
// that the struct is its cache key and an equal input means an equal output. There is no
// clock, no log, no look-up and no I/O here. The pipeline (package controlplane) builds
// the inputs, remembers the outputs and hands them to xds.
//
// One name, such as "api.default:80", names the cluster, its endpoints, its route
// configuration and its listener alike. The road of a request through an outbound proxy:
//
//	capture listener "outbound"           picks by original destination
//	-> cluster "dst|100.96.0.7:80"        one per virtual address and port
//	-> internal listener "api.default:80" (HTTP ports only)
//	-> routes "api.default:80"
//	-> cluster "api.default:80"           endpoints, mutual TLS
//
// A gateway's listeners, "gateway|http" and "gateway|https", take the last step at once.
//
// The capture listener is the same in every proxy, and a change of a route re-sends the
// routes of one service only.
package translate
