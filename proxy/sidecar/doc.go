// Package sidecar wires one workload's sidecar: the agent in this process, Envoy and the
// application as its children.
//
// The agent keeps the workload's identity (identity/agent) and hands it to Envoy
// (identity/sds) and the application (identity/workloadapi), registers the workload with
// the control plane, passes Envoy's configuration on and remembers it (proxy/relay),
// answers DNS, and forwards traces. All of that goes on, from what was last known, while
// the control plane is away. cmd/heddle calls Run.
//
// In a Kubernetes pod (pod.go) the application is another container, the Pod object is the
// registration, and the kubelet asks the agent in the application's place (proxy/probe).
package sidecar
