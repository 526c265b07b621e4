// Package metricsserver pins the metrics-server of test clusters, which tells autoscalers
// what pods use, as package jaeger pins Jaeger.
package metricsserver

import _ "embed"

const (
	// Version is the module version that metricsserver.mod requires.
	Version = "v0.9.0"
	// Package is the main package to build.
	Package = "sigs.k8s.io/metrics-server/cmd/metrics-server"
)

//go:embed metricsserver.mod
var Mod []byte // Mod is the go.mod to build Package in.

//go:embed metricsserver.sum
var Sum []byte // Sum is the go.sum that goes with Mod; it is complete.
