// Package pause holds the program of pods' sandboxes in test clusters, in Kubernetes' own
// clusters an image of that name: it holds the pod's namespaces and reaps its orphans.
package pause

import _ "embed"

const Version = "v1.0.0"

// Mod is the go.mod to build Main in; it needs no other modules.
var Mod = []byte("module pause\n\ngo 1.26.0\n")

//go:embed main.go.txt
var Main []byte // Main is the main package.
