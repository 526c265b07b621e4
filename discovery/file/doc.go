// Package file is the source that reads a directory of manifests.
//
// The directory is the state: each scan compares all of it with what is in force, so
// that lost or doubled notices of the kernel do no harm. A file that is wrong changes
// nothing: its last good content stays in force, over a restart too, and Problems tells
// what is wrong. Objects go in through a state.Writer, all files of a scan at once.
package file
