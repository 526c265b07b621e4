package sidecar

import (
	"os"
	"path/filepath"
	"testing"
)

// TestHeapLimit: Envoy gets what the agent leaves of a container's memory.
func TestHeapLimit(t *testing.T) {
	const normal = 512 << 20
	before := memoryLimits
	defer func() { memoryLimits = before }()
	for text, want := range map[string]uint64{
		"":                      normal, // no such file
		"max\n":                 normal,
		"9223372036854771712\n": normal, // version 1 without a limit
		"1073741824\n":          normal,
		"134217728\n":           80 << 20,
		"16777216\n":            32 << 20,
	} {
		file := filepath.Join(t.TempDir(), "memory.max")
		memoryLimits = []string{filepath.Join(t.TempDir(), "none"), file}
		if text != "" {
			if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if got := heapLimit(normal); got != want {
			t.Errorf("limit %q: %d, want %d", text, got, want)
		}
	}
}
