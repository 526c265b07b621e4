// Package attest decides who a workload is, from evidence that it cannot make up: the
// kernel's word on the peer of a Unix socket, a join token, or the SVID it already has.
//
// An [Attestor] is a value in a list; the first that accepts wins. identity/server runs
// the list before it asks identity/ca to sign. A new kind of evidence (a pod's service
// account token, a TPM) is one more function in the list.
package attest
