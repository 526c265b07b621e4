package parts

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"syscall"
	"time"

	"github.com/heddle-mesh/heddle/tools/jaeger"
)

// jaegerKey is Jaeger's directory name in the cache: it changes with every
// dependency, since those are in the hashed go.sum.
func jaegerKey() string {
	h := sha256.New()
	h.Write(jaeger.Mod)
	h.Write(jaeger.Sum)
	fmt.Fprintf(h, "%s/%s", runtime.GOOS, runtime.GOARCH)
	return "jaeger-" + jaeger.Version[1:] + "-" + hex.EncodeToString(h.Sum(nil))[:8]
}

// JaegerCached returns the path of the Jaeger program if it has been built.
func JaegerCached() (string, bool) {
	c, err := ownCache()
	if err != nil {
		return "", false
	}
	dir, ok := c.findAny(jaegerKey())
	return filepath.Join(dir, "jaeger"), ok
}

// Jaeger returns the path of the Jaeger program, building it the first time
// with the go command, from the module pinned in tools/jaeger. That takes
// several minutes at low priority and about 2 GB of Go's own caches; w, which
// may be nil, is told. If it is cut short, Go's build cache keeps what was
// compiled. The program has no web pages, only the query API.
func Jaeger(ctx context.Context, w io.Writer) (string, error) {
	c, err := ownCache()
	if err != nil {
		return "", fmt.Errorf("build Jaeger: %w", err)
	}
	if path, ok := JaegerCached(); ok {
		return path, nil
	}
	begin := time.Now()
	say := startProgress(w, "jaeger "+jaeger.Version[1:], func() string {
		return fmt.Sprintf("building it, which takes some minutes the first time (%s)", time.Since(begin).Truncate(30*time.Second))
	})
	dir, err := c.obtain(ctx, jaegerKey(), say, func(dir, scratch string) (manifest, error) {
		if err := buildJaeger(ctx, scratch, filepath.Join(dir, "jaeger")); err != nil {
			return manifest{}, err
		}
		return measure(dir, "jaeger")
	})
	say.stop(err)
	return filepath.Join(dir, "jaeger"), err
}

// buildJaeger compiles Jaeger to file out, with the module in directory dir.
func buildJaeger(ctx context.Context, dir, out string) error {
	gocmd, err := exec.LookPath("go")
	if err != nil {
		return fmt.Errorf("build Jaeger: the go command is needed: %w", err)
	}
	if err := errors.Join(
		os.WriteFile(filepath.Join(dir, "go.mod"), jaeger.Mod, 0o644),
		os.WriteFile(filepath.Join(dir, "go.sum"), jaeger.Sum, 0o644)); err != nil {
		return fmt.Errorf("build Jaeger: %w", err)
	}
	args := []string{"build", "-p", strconv.Itoa(max(1, runtime.NumCPU()/2)),
		"-trimpath", "-ldflags=-s -w", "-o", out, jaeger.Package}
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
			return fmt.Errorf("build Jaeger: %w", context.Cause(ctx))
		}
		return fmt.Errorf("build Jaeger: %w: %s", err, tail(said.Bytes(), 500))
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
