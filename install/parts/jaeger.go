package parts

import (
	"context"
	"io"
	"path/filepath"

	"github.com/heddle-mesh/heddle/tools/jaeger"
)

// jaegerPart is the trace store of the examples and tests: program "jaeger". It has no web
// pages, only the query API.
var jaegerPart = Built{
	Name: "jaeger", Version: jaeger.Version, Mod: jaeger.Mod, Sum: jaeger.Sum,
	Packages: map[string]string{"jaeger": jaeger.Package}, Flags: "-s -w",
}

// JaegerCached returns the path of the Jaeger program if it has been built.
func JaegerCached() (string, bool) {
	dir, ok := jaegerPart.Cached()
	return filepath.Join(dir, "jaeger"), ok
}

// Jaeger returns the path of the Jaeger program, building it the first time from the
// module pinned in tools/jaeger. See [Built.Build].
func Jaeger(ctx context.Context, w io.Writer) (string, error) {
	dir, err := jaegerPart.Build(ctx, w)
	return filepath.Join(dir, "jaeger"), err
}
