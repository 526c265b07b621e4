package local

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/heddle-mesh/heddle/install/parts"
	"github.com/heddle-mesh/heddle/proxy/capture"
	"github.com/heddle-mesh/heddle/proxy/envoy"
)

// Prepare fetches what a project needs from the outside, with progress to w: Envoy and
// the parts that its file names.
func Prepare(ctx context.Context, o *Options, w io.Writer) error {
	program, err := envoy.Obtain(ctx, os.Getenv(envoy.Variable), w)
	if err != nil {
		return err
	}
	o.Envoy = program.Path
	o.Parts = map[string]string{}
	for _, name := range o.Config.Parts {
		i := slices.IndexFunc(parts.All(), func(p parts.Part) bool { return p.Name() == name })
		if i < 0 {
			return fmt.Errorf("parts: there is no %q; there are nginx and postgres", name)
		}
		if o.Parts[name], err = parts.Ensure(ctx, parts.All()[i], w); err != nil {
			return err
		}
	}
	return nil
}

// BuildJaeger builds Jaeger into the cache, if it is not there; it takes minutes.
func BuildJaeger(ctx context.Context, w io.Writer) error {
	_, err := parts.Jaeger(ctx, w)
	return err
}

// EnterRootless runs args of our own binary in new user, network and mount namespaces,
// with the project's sockets and lock opened here, outside. Their names go along in the
// environment; Inside reads them.
func EnterRootless(ctx context.Context, o *Options, args []string) (*exec.Cmd, error) {
	lock, err := o.Project.lock()
	if errors.Is(err, capture.ErrHeld) {
		return nil, fmt.Errorf("project %s %w", o.Project.Name, errRunning)
	}
	if err != nil {
		return nil, err
	}
	files, names := []*os.File{lock}, []string{lockName}
	for _, e := range o.published() {
		l, err := net.Listen("tcp", e.address)
		if err != nil {
			return nil, e.inUse(err)
		}
		f, err := l.(*net.TCPListener).File()
		if err != nil {
			return nil, err
		}
		files, names = append(files, f), append(names, e.address)
		l.Close()
	}
	cache, err := parts.Dir()
	if err != nil {
		return nil, err
	}
	env := append(os.Environ(),
		insideVariable+"="+strings.Join(names, ","), "HEDDLE_ENVOY="+o.Envoy,
		"XDG_CACHE_HOME="+filepath.Dir(filepath.Dir(cache)))
	return capture.EnterRootless(ctx, capture.RootlessExec{
		Argv: args, Env: env, ExtraFiles: files, Stdout: os.Stdout, Stderr: os.Stderr,
	})
}

// insideVariable tells a supervisor in a user namespace which files it was given.
const insideVariable = "HEDDLE_INSIDE"

// Inside reports whether this process was started by EnterRootless, and takes over what
// that has opened.
func Inside() (files map[string]*os.File, inside bool) {
	names, inside := os.LookupEnv(insideVariable)
	if !inside {
		return nil, false
	}
	os.Unsetenv(insideVariable)
	files = map[string]*os.File{}
	for i, address := range strings.Split(names, ",") {
		if address != "" {
			unix.CloseOnExec(3 + i) // a service's programs get their own and no others
			files[address] = os.NewFile(uintptr(3+i), address)
		}
	}
	return files, true
}

// WaitReady waits until every process of a project is ready, but for Jaeger, which may
// still be being built. Progress goes to w. The error names the process that failed and
// its last words.
func WaitReady(ctx context.Context, p Project, workloads int, w io.Writer) error {
	said := time.Now()
	for {
		processes, err := PS(ctx, p)
		if err != nil { // a machine that is busy starting things may answer late
			select {
			case <-time.After(100 * time.Millisecond):
				continue
			case <-ctx.Done():
				return err
			}
		}
		ready, waiting := 0, []string(nil)
		for _, item := range processes.Items {
			switch {
			case item.Kind == supervisorKind && item.State == "failed":
				return fmt.Errorf("not everything was started: %s", item.Message)
			case item.State == "failed" || item.Restarts > 3 && item.State != "ready":
				return fmt.Errorf("%s fails (code %d %s); its last words in %s:\n%s", item.Name, item.ExitCode, item.Message,
					p.Log(cmp.Or(item.Workload, item.Name)), Tail(p.Log(cmp.Or(item.Workload, item.Name)), 10))
			case item.Kind == "sidecar" && item.State == "ready":
				ready++
			case item.Kind == "sidecar":
				waiting = append(waiting, item.Name)
			}
		}
		if ready == workloads {
			return nil
		}
		if time.Since(said) > time.Second {
			fmt.Fprintf(w, "%d of %d workloads are ready; waiting for %s\n", ready, workloads, strings.Join(waiting, ", "))
			said = time.Now()
		}
		select {
		case <-time.After(100 * time.Millisecond):
		case <-ctx.Done():
			return fmt.Errorf("not ready in time: %s", strings.Join(waiting, ", "))
		}
	}
}

// Workloads is how many instances a configuration has.
func (c *Config) Workloads() int { return len(c.workloads()) }

// Addresses says what to open in a browser.
func (o *Options) Addresses() []string {
	var out []string
	for _, w := range o.Config.workloads() {
		for _, p := range w.Service.Publish {
			if address, _, err := parsePublish(p); err == nil && w.First {
				out = append(out, fmt.Sprintf("%-10s http://%s/", w.Entry, address))
			}
		}
	}
	if o.Config.Jaeger {
		note := ""
		if _, ok := parts.JaegerCached(); !ok {
			note = " (being built, some minutes)"
		}
		out = append(out, fmt.Sprintf("%-10s http://%s/api/services%s", "jaeger", jaegerAddress, note))
	}
	return out
}

// Tail gives the last n lines of a file, "" where there is none.
func Tail(path string, n int) string {
	data, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	lines := strings.Split(strings.TrimRight(string(data), "\n"), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}
