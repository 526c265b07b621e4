// Package coredns pins the DNS server of test clusters, as package jaeger pins Jaeger. Its
// main package is ours: see main.go.txt.
package coredns

import _ "embed"

// Version is the module version that coredns.mod requires.
const Version = "v1.15.0"

//go:embed coredns.mod
var Mod []byte // Mod is the go.mod to build in.

//go:embed coredns.sum
var Sum []byte // Sum is the go.sum that goes with Mod; it is complete.

//go:embed main.go.txt
var Main []byte // Main is the main package.
