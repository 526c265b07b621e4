// Package kubernetes makes a control plane one of a Kubernetes cluster: it proves pods by
// their service account tokens, keeps the root key in a Secret, and elects the replica
// that writes. What pods and Services there are is read by discovery/kubernetes; the
// packages below this one inject sidecars.
//
// It talks to the API server with a REST client and the few types it needs. The generated
// clients of client-go would register every type of Kubernetes in the memory of each
// process that this binary is, sidecars among them.
package kubernetes
