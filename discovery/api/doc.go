// Package api is the source that people and sidecars write to over gRPC: the services
// Objects and Workloads of apipb.
//
// Everything goes through the state.Writer that discovery/file uses too, so that it is
// on disk before it is acknowledged. Who may connect is decided where the gRPC server is
// made; here a workload may only be registered as what its connection's SVID says.
package api
