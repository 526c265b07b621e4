// Package identityv1 is the service that gives workloads their SVIDs, generated from
// identity.proto. identity/server serves it, identity/agent calls it.
package identityv1
