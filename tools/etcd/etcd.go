// Package etcd pins the store of test clusters, as package jaeger pins Jaeger.
package etcd

import _ "embed"

const (
	// Version is the module version that etcd.mod requires.
	Version = "v3.7.3"
	// Package is the main package to build; its program is named "etcd".
	Package = "go.etcd.io/etcd/server/v3"
)

//go:embed etcd.mod
var Mod []byte // Mod is the go.mod to build Package in.

//go:embed etcd.sum
var Sum []byte // Sum is the go.sum that goes with Mod; it is complete.
