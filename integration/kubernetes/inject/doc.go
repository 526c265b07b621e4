// Package inject puts a sidecar into a pod: the decision whether, and what is changed.
//
// It changes the pod's document, not a typed copy of it, so that fields which this build
// does not know survive, and what others set on our containers as well. The webhook calls
// Pod and Patch, `heddle inject` calls File and Explain. Nothing here talks to a cluster.
package inject
