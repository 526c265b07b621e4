package kubetest

import (
	"context"
	"fmt"
	"os"
)

// Main starts a server in a folder of its own, runs a package's tests with it, and stops
// it: what a TestMain calls. It returns the exit code: that of run, or 1 where the server
// does not start, which is said on stderr.
func Main(run func(*Server) int) int {
	dir, err := os.MkdirTemp("", "heddle-kubetest-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	s, err := Start(context.Background(), dir)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer s.Stop()
	return run(s)
}
