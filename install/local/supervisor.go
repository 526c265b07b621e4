package local

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"os"
	"os/exec"
	"slices"
	"sync"
	"sync/atomic"
	"time"

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
	// namespace, and the lock.
	Files   map[string]*os.File
	Hurry   <-chan struct{} // closed: do not wait for requests under way; kill
	Envoy   string          // HEDDLE_ENVOY for the sidecars
	Verbose io.Writer       // where to copy all output, prefixed; nil = nowhere
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
// that reads as ended when the supervisor is no more. They end then, too. The descriptor
// after it is the project's lock, which they keep until then.
const LifelineVariable = "HEDDLE_LIFELINE"

// supervisor runs the processes of a project.
type supervisor struct {
	Options
	lines     *supervise.Lines // nil without Verbose
	lifeline  *os.File         // see LifelineVariable
	lock      *os.File         // the project's, for the children
	workloads []workload
	began     time.Time

	restarting sync.Mutex // held while workloads are restarted

	mu        sync.Mutex // guards what follows
	processes []*managed // of a workload the newest one only
	outputs   []io.Closer
	ending    bool  // nothing is launched any more
	failure   error // why not everything was started
	group     sync.WaitGroup
}

// managed is a supervised process.
type managed struct {
	*supervise.Process
	spec     supervise.Spec
	kind     string
	workload string // "" for what is not a sidecar
	status   string // path of the sidecar's status socket
	level    int    // how many others it waits for, one after the other
	stop     func()
	running  atomic.Pointer[os.Process] // nil until it was started once
	ended    chan struct{}              // closed when it has ended for good
	replaced chan struct{}              // closed when another one runs in its place; nil if none is to; guarded by the supervisor's mu
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
	if err := s.takeLock(); err != nil {
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
	stopMetrics, err := s.serveMetrics()
	if err != nil {
		return err
	}
	defer stopMetrics() // where what follows fails
	rest, stopRest := context.WithCancel(context.WithoutCancel(ctx))
	defer stopRest()
	if err := s.start(ctx, rest); err != nil && ctx.Err() == nil {
		// What has started goes on: "ps" and "up --wait" say what failed, "down" ends the rest.
		s.Log.Error("start", "error", err)
		s.mu.Lock()
		s.failure = err
		s.mu.Unlock()
	}
	<-ctx.Done()
	return s.end(func() {
		stopRest()
		stopMetrics()
	})
}

// start starts everything, in order.
func (s *supervisor) start(ctx, rest context.Context) error {
	control := &managed{kind: "controlplane"}
	if err := s.launch(rest, control, s.controlPlane()); err != nil {
		return err
	}
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
	started := map[string][]string{}
	for _, w := range s.inOrder() {
		for _, name := range w.Service.After {
			for _, workload := range started[name] {
				if err := s.awaitReady(ctx, workload); err != nil {
					return err
				}
			}
		}
		spec, status, err := s.sidecar(ctx, w)
		if err != nil {
			return fmt.Errorf("service %s: %w", w.Entry, err)
		}
		life, stop := context.WithCancel(context.Background())
		m := &managed{kind: "sidecar", workload: w.Name, status: status, level: s.Config.level(w.Entry), stop: stop}
		if err := s.launch(life, m, spec); err != nil {
			stop()
			return err
		}
		started[w.Entry] = append(started[w.Entry], w.Name)
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

// launch runs a process until the context is done. A workload's takes the place of the one
// before it. The error is errEnding.
func (s *supervisor) launch(ctx context.Context, m *managed, spec supervise.Spec) error {
	m.spec = spec
	spec.Launch = func(cmd *exec.Cmd) error {
		err := cmd.Start()
		if err == nil {
			m.running.Store(cmd.Process)
		}
		return err
	}
	m.Process, m.ended = supervise.New(spec, s.Log), make(chan struct{})
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ending {
		return errEnding
	}
	if i := slices.IndexFunc(s.processes, func(old *managed) bool { return m.workload != "" && old.workload == m.workload }); i >= 0 {
		s.processes[i] = m
	} else {
		s.processes = append(s.processes, m)
	}
	s.group.Go(func() {
		defer close(m.ended)
		if code, err := m.Run(ctx); err != nil || code != 0 {
			s.Log.Warn("process ended", "name", spec.Name, "code", code, "error", err)
		}
	})
	return nil
}
