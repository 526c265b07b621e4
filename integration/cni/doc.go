// Package cni is Heddle's CNI plugin, and what keeps it in place on a node.
//
// The plugin runs after the network's own, once for each pod that starts, and loads the
// capture rules into the pods of the mesh, so that nothing in a pod needs a right over the
// network. It is the program heddle under the name heddle-cni, and asks the API server who
// a pod is. Node copies it to a node, chains it into the node's configuration and repairs
// that; Repair finds pods that were started while it was not there. `heddle cni` runs both.
package cni
