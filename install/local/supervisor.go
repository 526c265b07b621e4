package local

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/user"
	"slices"
	"strconv"
	"sync"
	"time"

	"gopkg.in/natefinch/lumberjack.v2"

	"github.com/heddle-mesh/heddle/proxy/capture"
	"github.com/heddle-mesh/heddle/proxy/supervise"
)

// Options say how to run a project.
type Options struct {
	Config  *Config
	Project Project
	Capture capture.Mode
	Bin     string            // folder of heddle and of the programs next to it, ${BIN}
	Parts   map[string]string // fetched parts by name, ${PART_name}
	// Files are sockets that listen already, by ADDRESS:PORT, opened outside of the user
	// namespace.
	Files   map[string]*os.File
	Envoy   string    // HEDDLE_ENVOY for the sidecars
	Verbose io.Writer // where to copy all output, prefixed; nil = nowhere
	Log     *slog.Logger
}

// Addresses of the parts that exist once, in the supervisor's network namespace.
const (
	agentAddress   = "127.0.0.1:15010"
	metricsAddress = "127.0.0.1:15014"
	otlpAddress    = "127.0.0.1:4317"
	jaegerAddress  = "127.0.0.1:16686"
)

// supervisor runs the processes of a project.
type supervisor struct {
	Options
	lines     *supervise.Lines // nil without Verbose
	workloads []workload
	began     time.Time

	mu        sync.Mutex // guards processes
	processes []*managed
	group     sync.WaitGroup
}

// managed is a supervised process.
type managed struct {
	*supervise.Process
	kind     string
	workload string // "" for what is not a sidecar
	status   string // path of the sidecar's status socket
}

// Run supervises a project until the context is done or somebody asks for its end.
func Run(ctx context.Context, o Options) error {
	s := &supervisor{Options: o, workloads: o.Config.workloads(), began: time.Now()}
	if o.Verbose != nil {
		s.lines = supervise.NewLines(o.Verbose)
	}
	if err := o.Project.Make(); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stop, err := s.serveControl(ctx, cancel)
	if err != nil {
		return err
	}
	defer stop()
	sidecars, stopSidecars := context.WithCancel(context.WithoutCancel(ctx))
	rest, stopRest := context.WithCancel(context.WithoutCancel(ctx))
	defer stopRest()
	defer stopSidecars()
	if err := s.start(ctx, sidecars, rest); err != nil {
		s.Log.Error("start", "error", err)
		cancel()
	}
	<-ctx.Done()
	// Sidecars first: they say goodbye to the control plane.
	stopSidecars()
	s.await("sidecar")
	stopRest()
	s.group.Wait()
	if err != nil && !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

// start starts everything, in order.
func (s *supervisor) start(ctx, sidecars, rest context.Context) error {
	control := s.launch(rest, "controlplane", "controlplane", "", s.controlPlane())
	if err := control.ready(ctx); err != nil {
		return err
	}
	if s.Config.Jaeger {
		s.group.Add(1)
		go func() { defer s.group.Done(); s.jaeger(rest) }()
	}
	started := map[string][]*managed{}
	for _, w := range s.inOrder() {
		for _, name := range w.Service.After {
			for _, m := range started[name] {
				if err := m.ready(ctx); err != nil {
					return err
				}
			}
		}
		spec, status, err := s.sidecar(ctx, w)
		if err != nil {
			return fmt.Errorf("service %s: %w", w.Entry, err)
		}
		m := s.launch(sidecars, w.Name, "sidecar", status, spec)
		m.workload = w.Name
		started[w.Entry] = append(started[w.Entry], m)
	}
	return nil
}

// inOrder lists the workloads so that each comes after those it waits for.
func (s *supervisor) inOrder() []workload {
	var out []workload
	done := map[string]bool{}
	var visit func(entry string)
	visit = func(entry string) {
		if done[entry] {
			return
		}
		done[entry] = true
		for _, after := range s.Config.Services[entry].After {
			visit(after)
		}
		for _, w := range s.workloads {
			if w.Entry == entry {
				out = append(out, w)
			}
		}
	}
	for _, entry := range slices.Sorted(maps.Keys(s.Config.Services)) {
		visit(entry)
	}
	return out
}

// launch runs a process until the context is done.
func (s *supervisor) launch(ctx context.Context, name, kind, status string, spec supervise.Spec) *managed {
	m := &managed{Process: supervise.New(spec, s.Log), kind: kind, status: status}
	s.mu.Lock()
	s.processes = append(s.processes, m)
	s.mu.Unlock()
	s.group.Add(1)
	go func() {
		defer s.group.Done()
		if code, err := m.Run(ctx); err != nil || code != 0 {
			s.Log.Warn("process ended", "name", name, "code", code, "error", err)
		}
	}()
	return m
}

// ready waits until a process is ready, or says why it will not be.
func (m *managed) ready(ctx context.Context) error {
	status, err := m.Await(ctx, func(st supervise.Status) bool {
		return st.State == supervise.Ready || st.State == supervise.Failed || st.State == supervise.Stopped && !st.Since.IsZero() && st.ExitCode != 0
	})
	if err != nil {
		return fmt.Errorf("wait for %s: %w", status.Name, err)
	}
	if status.State != supervise.Ready {
		return fmt.Errorf("%s ended with code %d: %s", status.Name, status.ExitCode, status.Message)
	}
	return nil
}

// await waits for the end of all processes of a kind.
func (s *supervisor) await(kind string) {
	s.mu.Lock()
	processes := slices.Clone(s.processes)
	s.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	for _, m := range processes {
		if m.kind == kind {
			_, _ = m.Await(ctx, func(st supervise.Status) bool { return st.State == supervise.Stopped || st.State == supervise.Failed })
		}
	}
}

// output is where a process writes: a file that is bounded, and the terminal.
func (s *supervisor) output(name string) io.Writer {
	file := &lumberjack.Logger{Filename: s.Project.Log(name), MaxSize: 16, MaxBackups: 1} // megabytes
	if s.lines == nil {
		return file
	}
	return io.MultiWriter(file, s.lines.Writer(name+" | "))
}

// command is a spec that runs one of our own binary's commands.
func (s *supervisor) command(name string, args []string, env []string, files []*os.File) supervise.Spec {
	out := s.output(name)
	return supervise.Spec{
		Name: name, Restart: supervise.OnFailure, Grace: 20 * time.Second,
		Start: func(context.Context) (*exec.Cmd, error) {
			cmd := exec.Command("/proc/self/exe", args...)
			cmd.Args[0] = "heddle" // what ps and top show
			cmd.Env = append(os.Environ(), env...)
			cmd.Stdout, cmd.Stderr, cmd.ExtraFiles = out, out, files
			return cmd, nil
		},
	}
}

func (s *supervisor) controlPlane() supervise.Spec {
	args := []string{
		"controlplane", "--state", s.Project.path("controlplane"), "--socket", s.Project.ControlPlane(),
		"--listen", agentAddress, "--metrics", metricsAddress, "--trust-domain", s.Config.TrustDomain,
	}
	if s.Config.Objects != "" {
		args = append(args, "--objects", s.relative(s.Config.Objects))
	}
	if s.Config.Jaeger {
		args = append(args, "--otlp", otlpAddress)
	}
	spec := s.command("controlplane", args, nil, nil)
	spec.Ready = func(ctx context.Context) error {
		var d net.Dialer
		conn, err := d.DialContext(ctx, "unix", s.Project.ControlPlane())
		if err != nil {
			return err
		}
		return conn.Close()
	}
	return spec
}

// chown gives a folder to the user that a program runs as.
func chown(path, name string) error {
	if name == "" || os.Geteuid() != 0 || capture.InRootless() {
		return nil
	}
	u, err := user.Lookup(name)
	if err != nil {
		if u, err = user.LookupId(name); err != nil {
			return fmt.Errorf("user %q: there is none of that name or number on this machine", name)
		}
	}
	uid, _ := strconv.Atoi(u.Uid)
	gid, _ := strconv.Atoi(u.Gid)
	return os.Chown(path, uid, gid)
}

// unixClient talks HTTP to a Unix socket.
func unixClient(path string) *http.Client {
	return &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", path)
		},
	}}
}
