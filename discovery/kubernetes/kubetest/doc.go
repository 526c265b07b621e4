// Package kubetest runs a real Kubernetes API server with its etcd, for tests that need a
// cluster's objects and nothing that acts on them: there are no nodes and no controllers,
// so a test writes Pods' status and EndpointSlices itself.
//
// Everything listens on loopback only and keeps its files in one folder. The programs are
// found by Programs.
package kubetest
