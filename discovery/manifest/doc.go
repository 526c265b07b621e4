// Package manifest reads YAML and JSON documents into values of the mesh, strictly, and
// prints them again.
//
// The documents are Kubernetes': a Service (v1), the HTTPRoute and GRPCRoute of Gateway
// API (gateway.networking.k8s.io/v1, attached to Services as GAMMA has it) and heddle's
// own kinds (mesh.heddle.dev/v1alpha1). What one document alone can be wrong about is
// found here, all of it at once, each with its line, field and a fix; whether documents
// fit each other is the pipeline's to say. Sources (discovery/file, discovery/api) call
// it; it imports the model and the YAML parser only.
package manifest
