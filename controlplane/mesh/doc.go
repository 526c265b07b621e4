// Package mesh is the model: the nouns of a service mesh as immutable values, and the
// Store that turns changes of them into snapshots.
//
// A published value never changes. A change makes a new value, and a value that equals
// the one before keeps its old pointer, so that "did this change" is one comparison of
// pointers everywhere downstream. Sources (discovery/...) make the values, translate
// reads them. The package imports nothing but spiffeid and the standard library.
package mesh
