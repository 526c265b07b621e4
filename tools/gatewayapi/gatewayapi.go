// Package gatewayapi pins the CustomResourceDefinitions of Gateway API that tests install,
// by the module that they come in.
package gatewayapi

const (
	// Module is the module, and Version its version.
	Module, Version = "sigs.k8s.io/gateway-api", "v1.6.1"
	// Sum is the go.sum by which the module is checked.
	Sum = "sigs.k8s.io/gateway-api v1.6.1 h1:mock6phZbI6rvZerwrVNk7hVNymQgHo+6sJ81Ia7ftY=\n" +
		"sigs.k8s.io/gateway-api v1.6.1/go.mod h1:FVfx3t389ybeXOqvDghLbdvJdSCfI/PReqCUI3lu3mY=\n"
)
