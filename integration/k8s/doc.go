// Package k8s tests Heddle on a real Kubernetes, which package cluster boots. `make e2e-k8s`
// runs it; with HEDDLE_CLUSTER=DIR it uses the cluster of `heddle-cluster -dir DIR up`,
// loads the newest images into it, and leaves it running.
package k8s
