// Package cluster boots a real Kubernetes of several nodes on one machine, for tests and
// for people who want to try things: etcd, the control plane, and for each node a
// containerd, a kubelet and a kube-proxy of its own.
//
// Everything lives in namespaces of its own: one process holds a mount, pid and network
// namespace with a bridge, the "fabric", where the control plane runs; each node is a tree
// of processes in namespaces below it. Nothing listens on, or is routed to, the machine's
// network, so clusters do not meet, and the death of that one process ends them. Programs
// run inside by In; connections are made by Dial.
//
// Nothing is pulled: programs are built from pinned Go modules and kept in the cache of
// package parts, images are made from files.
//
// The program that calls Start is run again for the fabric and the nodes: its main, or its
// TestMain, must call Main first.
package cluster
