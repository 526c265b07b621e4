// Package certmanager pins the cert-manager of test clusters, as package jaeger pins Jaeger.
// Its main package is ours: see main.go.txt.
package certmanager

import _ "embed"

const (
	// Module is the module that certmanager.mod requires, with the CustomResourceDefinitions
	// in its folder deploy/crds.
	Module = "github.com/cert-manager/cert-manager"
	// Version is its version.
	Version = "v1.21.2"
)

//go:embed certmanager.mod
var Mod []byte // Mod is the go.mod to build in.

//go:embed certmanager.sum
var Sum []byte // Sum is the go.sum that goes with Mod; it is complete.

//go:embed main.go.txt
var Main []byte // Main is the main package.
