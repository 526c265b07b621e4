// Package apipb is the control plane's API for people and for sidecars, generated from
// api.proto. discovery/api serves Objects and Workloads, controlplane/admin serves Mesh.
package apipb
