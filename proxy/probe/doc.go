// Package probe asks an application whether it is well, in the kubelet's place.
//
// The kubelet has no SVID, so that a proxy with strict mutual TLS refuses it. The injector
// leads its HTTP, TCP and gRPC probes to the agent of the pod instead, and says what they
// were in the environment (Parse). The agent asks the application the way that the kubelet
// would, from inside the pod, and answers with what the kubelet would have made of it.
// proxy/sidecar serves the Handler; the package knows neither Envoy nor meshes.
package probe
