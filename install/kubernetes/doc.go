// Package kubernetes installs the control plane on a Kubernetes cluster.
//
// There is one source of truth, the Helm chart in the folder chart. `heddle install` renders
// it itself, so that nobody needs Helm; a test holds the two renderings to be the same.
// What is applied is applied by server-side apply under the field manager "heddle", in
// Kubernetes' own way: fields that others own stay theirs, and conflicts are told.
package kubernetes
