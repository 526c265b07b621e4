// Package capture puts a workload's traffic through its Envoy.
//
// In mode Transparent (root) and Rootless (a plain user, inside a user
// namespace) every workload gets a network namespace of its own, joined by a
// veth pair to the mesh's bridge, and nftables rules that redirect what its
// app sends and receives. In mode Explicit nothing is captured and the app
// calls its proxy by address. In a Kubernetes pod others made the namespace,
// and Rules.Apply loads the rules into it. Everything is done over netlink and system
// calls: no ip, nft or iptables binary is needed.
//
// `heddle up`, `heddle sidecar` and `heddle capture` call it. It starts processes by running its
// own binary again with ChildCommand as first argument; main hands such a run
// to Main before it does anything else. It knows nothing of xDS or meshes.
package capture
