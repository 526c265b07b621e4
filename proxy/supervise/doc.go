// Package supervise runs programs: starts them, waits until they are ready,
// restarts them with back-off, stops them in good order, and tells in which
// state they are. [Process] does so for one program; [Sidecar] for an Envoy and
// the application that it serves. Package cmd/heddle gives it the commands; it
// knows neither configurations nor meshes.
package supervise
