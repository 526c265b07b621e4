// Package jaeger holds the module that pins Jaeger, the trace store of the
// examples and tests, with the hash of everything it is built from. The files
// are named jaeger.mod and jaeger.sum, not go.mod and go.sum, so that they
// belong to this module and are embedded into the binary, which can then build
// Jaeger anywhere with nothing but the go command. Package install/parts does so.
//
// To move to another version: copy both files to go.mod and go.sum in an empty
// directory, edit the version, copy the new Jaeger module's replace lines and
// its go.sum, run "go list -mod=mod -deps" on Package, and copy them back.
package jaeger

import _ "embed"

const (
	// Version is the module version that jaeger.mod requires.
	Version = "v1.76.0"
	// Package is the main package to build.
	Package = "github.com/jaegertracing/jaeger/cmd/jaeger"
)

//go:embed jaeger.mod
var Mod []byte // Mod is the go.mod to build Package in.

//go:embed jaeger.sum
var Sum []byte // Sum is the go.sum that goes with Mod; it is complete.
