// Package state keeps the mesh's objects, workloads and virtual addresses over a restart
// of the control plane, in one bbolt file.
//
// DB is the file: whole transactions, on disk before they return. Writer is what sources
// (discovery/api, discovery/file) write through: one at a time, each batch stored first
// and handed on to the mesh after, so that what was acknowledged is never lost and the
// mesh never sees two batches in the other order. Documents are opaque here but for
// their spec, whose changes count generations.
package state
