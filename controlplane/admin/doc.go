// Package admin answers what people ask about a running mesh: what each proxy holds and
// why (Config), which one is behind or refused something (Proxies, Wait), how an object
// fares (Status), and what is wrong and how to put it right (Check).
//
// It implements the gRPC service Mesh of discovery/api/apipb, and only reads: the
// pipeline's snapshot and provenance, the xDS server's state of the streams, and the
// CA's certificates. Nothing is stored here, so no answer can be out of date.
package admin
