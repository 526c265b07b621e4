package main

import (
	"bytes"
	"context"
	"os"
	"testing"

	"github.com/heddle-mesh/heddle/proxy/envoy"
)

// TestSidecarEndBeforeBegin: a sidecar that is told to end while it looks at its Envoy has
// done so, and blames nobody's command line.
func TestSidecarEndBeforeBegin(t *testing.T) {
	program, err := os.Executable()
	fatal(t, err)
	t.Setenv(envoy.Variable, program)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var stderr bytes.Buffer
	root := rootCommand(&env{stdin: os.Stdin, stdout: &stderr, stderr: &stderr})
	root.SetArgs([]string{"sidecar", "--service", "api", "--port", "8080", "--capture", "explicit", "--state", t.TempDir(), "--", "true"})
	if err := root.ExecuteContext(ctx); err != nil || stderr.Len() > 0 {
		t.Errorf("ended with %v: %s", err, stderr.String())
	}
}
