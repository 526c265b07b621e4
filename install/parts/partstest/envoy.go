// Package partstest gives tests the real programs that they run against.
package partstest

import (
	"io"
	"os"
	"testing"

	"github.com/heddle-mesh/heddle/install/parts"
	"github.com/heddle-mesh/heddle/proxy/envoy"
)

// Envoy returns the path of the Envoy to test with: $HEDDLE_ENVOY, else the
// pinned one, which the first test on a machine fetches. It fails t if there is
// none: without Envoy nothing is tested.
func Envoy(t testing.TB) string {
	t.Helper()
	program, err := envoy.Obtain(t.Context(), os.Getenv(envoy.Variable), t.Output())
	if err != nil {
		t.Fatal(err)
	}
	return program.Path
}

// Program returns the path of a program of a fetched part, such as
// Program(t, parts.Nginx, "nginx").
func Program(t testing.TB, part parts.Part, name string) string {
	t.Helper()
	dir, err := parts.Ensure(t.Context(), part, t.Output())
	if err != nil {
		t.Fatal(err)
	}
	return part.Program(dir, name)
}

// JaegerVariable names the environment variable with the path of a Jaeger to
// use in tests in place of the one in the cache.
const JaegerVariable = "HEDDLE_JAEGER"

// Jaeger returns the path of the Jaeger program. Building it takes minutes, so
// that a test is skipped when it is neither named by $HEDDLE_JAEGER nor in the
// cache. A value of "build" builds it.
func Jaeger(t testing.TB) string {
	t.Helper()
	switch path := os.Getenv(JaegerVariable); path {
	case "":
		path, ok := parts.JaegerCached()
		if !ok {
			t.Skip("Jaeger is not in the cache; set " + JaegerVariable + "=build to build it, once")
		}
		return path
	case "build":
		path, err := parts.Jaeger(t.Context(), io.MultiWriter(t.Output(), os.Stderr))
		if err != nil {
			t.Fatal(err)
		}
		return path
	default:
		return path
	}
}
