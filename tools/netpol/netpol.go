// Package netpol pins the engine that enforces NetworkPolicies in test clusters, as package
// jaeger pins Jaeger. Its main package is ours: see main.go.txt.
package netpol

import _ "embed"

// Version is the module version that netpol.mod requires: of k3s' copy of kube-router.
const Version = "v2.2.1"

//go:embed netpol.mod
var Mod []byte // Mod is the go.mod to build in.

//go:embed netpol.sum
var Sum []byte // Sum is the go.sum that goes with Mod; it is complete.

//go:embed main.go.txt
var Main []byte // Main is the main package.
