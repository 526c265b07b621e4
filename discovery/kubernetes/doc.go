// Package kubernetes brings the objects of a Kubernetes cluster into the mesh: Services,
// EndpointSlices and Pods as they are, and the kinds of Gateway API and of Heddle as
// discovery/manifest reads them.
//
//	API server -> reflector -> table, one of each kind -> view -> Submit
//
// Reflectors of client-go list and watch each kind. What they bring is converted at once
// and the rest dropped: no copy of the cluster's objects is kept. The view, which one
// goroutine owns, makes one consistent mesh of all tables; nothing is submitted before all
// of them are complete, and then bursts are submitted together. While the API server is
// away, everything stays as it was; when it is back, only what has really changed is
// submitted.
package kubernetes
