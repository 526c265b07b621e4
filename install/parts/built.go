package parts

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"syscall"
	"time"
)

// A Built part is compiled from a pinned Go module, with the go command.
type Built struct {
	Name, Version string // the version as modules have it, v1.2.3
	// Mod and Sum are the go.mod and the complete go.sum to build in.
	Mod, Sum []byte
	// Main is the main package, where it is our own and not of the module; or nil.
	Main []byte
	// Packages are the main packages by program; "." is Main.
	Packages map[string]string
	Flags    string // the linker's
}

// key is the part's directory name in the cache: it changes with every dependency, since
// those are in the hashed go.sum.
func (b Built) key() string {
	h := sha256.New()
	h.Write(b.Mod)
	h.Write(b.Sum)
	h.Write(b.Main)
	if len(b.Packages) > 1 {
		for _, program := range slices.Sorted(maps.Keys(b.Packages)) {
			fmt.Fprintln(h, program, b.Packages[program], b.Flags)
		}
	}
	fmt.Fprintf(h, "%s/%s", runtime.GOOS, runtime.GOARCH)
	return b.Name + "-" + b.Version[1:] + "-" + hex.EncodeToString(h.Sum(nil))[:8]
}

// Cached returns the directory of the programs if they have been built.
func (b Built) Cached() (string, bool) {
	c, err := ownCache()
	if err != nil {
		return "", false
	}
	return c.findAny(b.key())
}

// Build returns the directory of the programs, building them the first time. That takes
// minutes at low priority and a lot of Go's own caches; w, which may be nil, is told. If
// it is cut short, Go's build cache keeps what was compiled.
func (b Built) Build(ctx context.Context, w io.Writer) (string, error) {
	c, err := ownCache()
	if err != nil {
		return "", fmt.Errorf("build %s: %w", b.Name, err)
	}
	if dir, ok := b.Cached(); ok {
		return dir, nil
	}
	begin := time.Now()
	say := startProgress(w, b.Name+" "+b.Version[1:], func() string {
		return fmt.Sprintf("building it, which takes some minutes the first time (%s)", time.Since(begin).Truncate(30*time.Second))
	})
	dir, err := c.obtain(ctx, b.key(), say, func(dir, scratch string) (manifest, error) {
		if err := b.compile(ctx, scratch, dir); err != nil {
			return manifest{}, fmt.Errorf("build %s: %w", b.Name, err)
		}
		return measure(dir, slices.Sorted(maps.Keys(b.Packages))...)
	})
	say.stop(err)
	return dir, err
}

// compile builds every program to directory out, with the module in directory dir.
func (b Built) compile(ctx context.Context, dir, out string) error {
	gocmd, err := exec.LookPath("go")
	if err != nil {
		return fmt.Errorf("the go command is needed: %w", err)
	}
	files := map[string][]byte{"go.mod": b.Mod, "go.sum": b.Sum}
	if b.Main != nil {
		files["main.go"] = b.Main
	}
	for name, data := range files {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o644); err != nil {
			return err
		}
	}
	for _, program := range slices.Sorted(maps.Keys(b.Packages)) {
		if err := b.run(ctx, dir, gocmd, "build", "-p", strconv.Itoa(max(1, runtime.NumCPU()/b.share())),
			"-trimpath", "-ldflags="+b.Flags, "-o", filepath.Join(out, program), b.Packages[program]); err != nil {
			return err
		}
	}
	return nil
}

// share is which part of the machine a build takes. The shop is being used while Jaeger is
// built; nobody waits for anything else but the build of a cluster.
func (b Built) share() int {
	if b.Name == "jaeger" {
		return 2
	}
	return 1
}

// run runs the go command with low priority.
func (b Built) run(ctx context.Context, dir, gocmd string, args ...string) error {
	cmd := exec.CommandContext(ctx, gocmd, args...)
	if nice, err := exec.LookPath("nice"); err == nil {
		cmd = exec.CommandContext(ctx, nice, append([]string{"-n", "10", gocmd}, args...)...)
	}
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GOFLAGS=-mod=readonly", "GOWORK=off", "CGO_ENABLED=0",
		"GOOS="+runtime.GOOS, "GOARCH="+runtime.GOARCH)
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) }
	cmd.WaitDelay = 10 * time.Second
	if err := cmd.Run(); err != nil {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		return fmt.Errorf("%w: %s", err, tail(said.Bytes(), 500))
	}
	return nil
}

// tail is the end of what a program said, where compilers put the error.
func tail(said []byte, n int) string {
	said = bytes.TrimSpace(said)
	if len(said) > n {
		said = append([]byte("…"), said[len(said)-n:]...)
	}
	return string(said)
}
