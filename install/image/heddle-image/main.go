// Heddle-image writes images as archives: what `docker load` and `ctr images import` take.
// Without --all it is that of Heddle, which `make image` calls; with it those of the
// example shop, too, for `make images`.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"

	"github.com/heddle-mesh/heddle/install/examples/shop/images"
	"github.com/heddle-mesh/heddle/install/image"
	"github.com/heddle-mesh/heddle/proxy/envoy"
)

func main() {
	name := flag.String("name", "heddle.local/heddle:dev", "name and tag of Heddle's image")
	heddle := flag.String("heddle", "bin/heddle", "the program, static; with --all, the shop's lie beside it")
	out := flag.String("o", "bin/heddle-image.tar", "file to write")
	all := flag.String("all", "", "`FOLDER` to write all images to")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	err := error(nil)
	if *all != "" {
		err = writeAll(ctx, *name, *heddle, *all)
	} else {
		err = write(ctx, *name, *heddle, *out)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "heddle-image:", err)
		os.Exit(1)
	}
}

func write(ctx context.Context, name, heddle, out string) error {
	proxy, err := envoy.Obtain(ctx, "", os.Stderr)
	if err != nil {
		return err
	}
	i, err := image.Heddle(name, heddle, proxy.Path)
	if err != nil {
		return err
	}
	return image.WriteFile(out, i)
}

func writeAll(ctx context.Context, name, heddle, dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	if err := write(ctx, name, heddle, filepath.Join(dir, "heddle.tar")); err != nil {
		return err
	}
	shop, err := images.All(ctx, filepath.Dir(heddle), os.Stderr)
	if err != nil {
		return err
	}
	for name, i := range shop {
		if err := image.WriteFile(filepath.Join(dir, name+".tar"), i); err != nil {
			return err
		}
	}
	return nil
}
