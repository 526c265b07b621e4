// Package dns is the DNS server in every sidecar's agent. It answers names of
// services from a [Table] that the agent builds out of xDS resources, so it
// goes on working while the control plane is away, and forwards all else to
// the machine's resolvers through a small cache. Where a cluster has a DNS server of its
// own, only names in the table are answered here ([Zone.Beside]).
//
// Names follow "Kubernetes DNS-Based Service Discovery", schema 1.1.0, save
// its deprecated pod records (a-b-c-d.NS.pod.DOMAIN): they exist for any
// address somebody asks for, and so say nothing. Short names (S, S.NS) are
// answered directly too, for clients that use no search path.
//
// A query takes the packed road (packed.go) if it is a plain question about
// the mesh, else the whole one: miekg/dns message, then the handlers listed
// in [Server.handlers], in that order. A test holds both to the same answer.
package dns
