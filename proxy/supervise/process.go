package supervise

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os/exec"
	"sync"
	"time"
)

// State is where a process is in its life.
type State string

const (
	Starting   State = "starting"    // running, not ready yet
	Ready      State = "ready"       // running
	Unready    State = "not ready"   // was ready, and is running
	BackingOff State = "backing off" // ended, to be started again
	Draining   State = "draining"    // asked to end, or its peers asked to leave
	Stopped    State = "stopped"     // ended as asked, or with code 0
	Failed     State = "failed"      // ended otherwise, for good
)

// Status is what can be told of a process at one moment.
type Status struct {
	Name     string    `json:"name"`
	State    State     `json:"state"`
	PID      int       `json:"pid,omitempty"`     // 0 when it does not run
	Restarts int       `json:"restarts"`          // starts but the first
	ExitCode int       `json:"exitCode"`          // of the last run, see ExitCode
	Since    time.Time `json:"since"`             // begin of State
	Message  string    `json:"message,omitempty"` // why it failed, or is not ready

	ended bool // Run has returned
}

// A Process runs the program of a Spec, once.
type Process struct {
	spec Spec
	log  *slog.Logger
	kill chan struct{} // closed by Kill
	once sync.Once     // for kill

	mu      sync.Mutex // guards status and changed
	status  Status
	changed chan struct{} // closed and replaced at each change
}

// New returns the process, which [Process.Run] starts.
func New(spec Spec, log *slog.Logger) *Process {
	return &Process{
		spec: spec.withDefaults(), log: log.With("process", spec.Name), kill: make(chan struct{}),
		status:  Status{Name: spec.Name, State: Stopped, Since: time.Now()},
		changed: make(chan struct{}),
	}
}

// Status returns the present status and a channel that is closed at its next change.
func (p *Process) Status() (Status, <-chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.status, p.changed
}

// Await waits until ok holds of the status. Its error is the context's.
func (p *Process) Await(ctx context.Context, ok func(Status) bool) (Status, error) {
	for {
		status, changed := p.Status()
		if ok(status) {
			return status, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return status, fmt.Errorf("wait for %s, which is %s: %w", p.spec.Name, status.State, context.Cause(ctx))
		}
	}
}

// Kill ends the process group at once and for good. Run returns soon after.
func (p *Process) Kill() { p.once.Do(func() { close(p.kill) }) }

// set changes the status.
func (p *Process) set(change func(*Status)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	before := p.status
	change(&p.status)
	if p.status.State != before.State {
		p.status.Since = time.Now()
	}
	if p.status != before {
		close(p.changed)
		p.changed = make(chan struct{})
	}
}

// drain marks the process as draining, for callers that prepare its end.
func (p *Process) drain() {
	p.set(func(s *Status) {
		if s.State == Ready || s.State == Unready || s.State == Starting {
			s.State = Draining
		}
	})
}

// Run starts the process and returns when it has ended and will not be started
// again, with the exit code of its last run (see [ExitCode]); the error says
// why it could not be run at all. When ctx is done the process is sent its stop
// signal and, after the grace, killed with its group. Run is called once.
func (p *Process) Run(ctx context.Context) (code int, err error) {
	for failures := 0; ; failures++ {
		began := time.Now()
		err = p.run(ctx)
		code = ExitCode(err)
		if p.ended(ctx) || p.spec.Restart == Never || p.spec.Restart == OnFailure && code == 0 {
			break
		}
		if status, _ := p.Status(); status.State == Stopped {
			break // it was never started: that will not change
		}
		if time.Since(began) >= p.spec.Backoff.Stable {
			failures = 0
		}
		wait := p.spec.Backoff.random(failures)
		p.log.Warn("process ended, starting it again", "code", code, "in", wait.Round(time.Millisecond))
		p.set(func(s *Status) { s.State, s.PID, s.ExitCode, s.Message = BackingOff, 0, code, reason(err) })
		if !p.sleep(ctx, wait) {
			break
		}
		p.set(func(s *Status) { s.Restarts++ })
	}
	p.set(func(s *Status) {
		s.PID, s.ExitCode, s.State, s.Message, s.ended = 0, code, Stopped, "", true
		if code != 0 && !p.ended(ctx) {
			s.State, s.Message = Failed, reason(err)
		}
	})
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) || errors.Is(err, exec.ErrWaitDelay) {
		return code, nil
	}
	return code, err
}

func reason(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// ended reports whether somebody asked for the end.
func (p *Process) ended(ctx context.Context) bool {
	select {
	case <-p.kill:
		return true
	default:
		return ctx.Err() != nil
	}
}

// sleep reports whether it was not cut short.
func (p *Process) sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
	case <-p.kill:
	}
	return false
}

// run starts the process, once, and waits for its end.
func (p *Process) run(ctx context.Context) error {
	cmd, err := p.spec.Start(ctx)
	if err == nil {
		prepare(cmd)
		err = p.spec.Launch(cmd)
	}
	if err != nil {
		return fmt.Errorf("start %s: %w", p.spec.Name, err)
	}
	p.set(func(s *Status) { s.State, s.PID, s.Message = Starting, cmd.Process.Pid, "" })
	p.log.Debug("process started", "pid", cmd.Process.Pid)

	exited := make(chan error, 1)
	go func() { exited <- wait(cmd) }()
	pollCtx, stopPolling := context.WithCancel(ctx)
	polled := make(chan struct{})
	go func() { defer close(polled); p.watchReady(pollCtx) }()
	defer func() { stopPolling(); <-polled }()

	select {
	case err := <-exited:
		return err
	case <-p.kill:
		return p.killGroup(cmd, exited)
	case <-ctx.Done():
		p.drain()
		return p.stop(cmd, exited)
	}
}
