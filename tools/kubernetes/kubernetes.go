// Package kubernetes pins the Kubernetes of test clusters, as package jaeger pins Jaeger:
// the control plane, the kubelet, kube-proxy and kubectl, all from one module.
//
// To move to another version: in an empty directory write a go.mod that requires it and
// replaces each k8s.io module of its staging area by the published v0.MINOR.PATCH, import
// Packages in a file, run "go mod tidy", and copy go.mod and go.sum back.
package kubernetes

import _ "embed"

const (
	// Version is the module version that kubernetes.mod requires.
	Version = "v1.37.2"
	// Flags are the linker's: without them the programs take themselves for v0.0.0.
	Flags = "-s -w -X k8s.io/component-base/version.gitVersion=" + Version +
		" -X k8s.io/component-base/version.gitMajor=1 -X k8s.io/component-base/version.gitMinor=37"
)

// Packages are the main packages to build, by program.
var Packages = map[string]string{
	"kube-apiserver":          "k8s.io/kubernetes/cmd/kube-apiserver",
	"kube-controller-manager": "k8s.io/kubernetes/cmd/kube-controller-manager",
	"kube-scheduler":          "k8s.io/kubernetes/cmd/kube-scheduler",
	"kubelet":                 "k8s.io/kubernetes/cmd/kubelet",
	"kube-proxy":              "k8s.io/kubernetes/cmd/kube-proxy",
	"kubectl":                 "k8s.io/kubernetes/cmd/kubectl",
}

//go:embed kubernetes.mod
var Mod []byte // Mod is the go.mod to build Packages in.

//go:embed kubernetes.sum
var Sum []byte // Sum is the go.sum that goes with Mod; it is complete.
