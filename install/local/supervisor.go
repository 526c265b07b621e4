package local

import (
	"context"
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

// LifelineVariable names, in the environment of the supervisor's children, a descriptor
// that reads as ended when the supervisor is no more. They end then, too.
const LifelineVariable = "HEDDLE_LIFELINE"

// supervisor runs the processes of a project.
type supervisor struct {
	Options
	lines     *supervise.Lines // nil without Verbose
	lifeline  *os.File         // see LifelineVariable
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
	level    int    // how many others it waits for, one after the other
	stop     func()
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
	bin, err := o.Project.reachable(o.Bin)
	if err != nil {
		return err
	}
	s.Bin = bin
	// Nothing is ever written; the other end is closed when we are gone, however that came.
	lifeline, held, err := os.Pipe()
	if err != nil {
		return err
	}
	defer lifeline.Close()
	defer held.Close()
	s.lifeline = lifeline
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stop, err := s.serveControl(ctx, cancel)
	if err != nil {
		return err
	}
	defer stop()
	rest, stopRest := context.WithCancel(context.WithoutCancel(ctx))
	defer stopRest()
	if err := s.start(ctx, rest); err != nil && ctx.Err() == nil {
		// What has started goes on: "up --wait" says what failed, "down" ends the rest.
		s.Log.Error("start", "error", err)
	}
	<-ctx.Done()
	s.stopSidecars()
	stopRest()
	s.group.Wait()
	return nil
}

// stopSidecars ends the sidecars, those first that others do not wait for: nobody calls
// what is gone. The control plane lives on meanwhile, they say goodbye to it.
func (s *supervisor) stopSidecars() {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	for level := s.Config.depth(); level >= 0; level-- {
		var ending []*managed
		s.mu.Lock()
		for _, m := range s.processes {
			if m.workload != "" && m.level == level {
				ending = append(ending, m)
			}
		}
		s.mu.Unlock()
		for _, m := range ending {
			m.stop()
		}
		for _, m := range ending {
			_, _ = m.Await(ctx, func(st supervise.Status) bool { return st.State == supervise.Stopped || st.State == supervise.Failed })
		}
	}
}

// start starts everything, in order.
func (s *supervisor) start(ctx, rest context.Context) error {
	control := s.launch(rest, &managed{kind: "controlplane"}, s.controlPlane())
	if err := control.ready(ctx); err != nil {
		return err
	}
	if err := s.apply(ctx); err != nil {
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
		m := s.launchSidecar(w, status, spec)
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

// launchSidecar runs a sidecar until it is stopped.
func (s *supervisor) launchSidecar(w workload, status string, spec supervise.Spec) *managed {
	ctx, cancel := context.WithCancel(context.Background())
	return s.launch(ctx, &managed{
		kind: "sidecar", workload: w.Name, status: status, level: s.Config.level(w.Entry), stop: cancel,
	}, spec)
}

// launch runs a process until the context is done.
func (s *supervisor) launch(ctx context.Context, m *managed, spec supervise.Spec) *managed {
	m.Process = supervise.New(spec, s.Log)
	s.mu.Lock()
	s.processes = append(s.processes, m)
	s.mu.Unlock()
	s.group.Add(1)
	go func() {
		defer s.group.Done()
		if code, err := m.Run(ctx); err != nil || code != 0 {
			s.Log.Warn("process ended", "name", spec.Name, "code", code, "error", err)
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
			fd := 3 + len(files)
			cmd.Args[0] = "heddle" // what ps and top show
			cmd.Env = append(append(os.Environ(), env...), LifelineVariable+"="+strconv.Itoa(fd))
			cmd.Stdout, cmd.Stderr = out, out
			cmd.ExtraFiles = append(slices.Clone(files), s.lifeline)
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
	if s.Config.SVIDTTL != 0 {
		args = append(args, "--svid-ttl", s.Config.SVIDTTL.String())
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
	if name == "" || !capture.MachineRoot() {
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
