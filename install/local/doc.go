// Package local runs a whole mesh on this machine without an orchestrator: what "heddle
// up" does. A file names the services; the package starts the control plane, each
// service's processes with a sidecar, and Jaeger, and supervises them.
//
// There are two stages. Launch is what the user's command does: it prepares what needs
// the outside world (parts to fetch, sockets to open), and where the user is not root
// enters a user namespace. Run is the supervisor, inside. It answers ps, down and exec on
// Unix sockets in the project's folder. cmd/heddle calls both. A lock on the project, which
// every process of it shares, tells when the last of them has ended.
package local
