package supervise

import (
	"context"
	"errors"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"syscall"
	"time"
)

// Restart says when a process that ended is started again.
type Restart int

const (
	Never     Restart = iota // not at all
	OnFailure                // if its exit code was not 0
	Always                   // whenever it was not asked to stop
)

// Spec describes one program. Name and Start are required.
type Spec struct {
	Name string
	// Start makes the command, anew for each start; it must not start it and
	// must not tie it to a context (exec.Command, not CommandContext). The
	// command gets a process group of its own.
	Start func(ctx context.Context) (*exec.Cmd, error)
	// Launch starts the command; nil is its own Start. A network namespace has
	// its own way, since a child is born in the namespace of a thread.
	Launch func(*exec.Cmd) error
	// Ready is asked again and again until it returns nil. A nil func means
	// that the process is ready as soon as it runs.
	Ready func(ctx context.Context) error
	// Recheck is how often a process that was ready is asked again; 0 is never.
	Recheck time.Duration
	// Stop is sent to the process, not to its group, to end it; 0 is SIGTERM.
	Stop syscall.Signal
	// Grace is the time between Stop and SIGKILL to the whole group; 0 is 10 s.
	Grace   time.Duration
	Restart Restart
	Backoff Backoff
}

func (s Spec) withDefaults() Spec {
	if s.Launch == nil {
		s.Launch = (*exec.Cmd).Start
	}
	if s.Stop == 0 {
		s.Stop = syscall.SIGTERM
	}
	if s.Grace == 0 {
		s.Grace = 10 * time.Second
	}
	if s.Backoff == (Backoff{}) {
		s.Backoff = DefaultBackoff
	}
	return s
}

// Backoff is the waiting time between restarts: Min, doubled each time up to
// Max, and of that a random part between half and all, so that many do not
// restart in step. A run of Stable makes it begin again with Min.
type Backoff struct{ Min, Max, Stable time.Duration }

// DefaultBackoff restarts a killed Envoy before a client's retries end, and a
// broken one four times a minute.
var DefaultBackoff = Backoff{Min: 100 * time.Millisecond, Max: 15 * time.Second, Stable: 30 * time.Second}

// delay is the wait before restart number n, from 0, for random r in [0,1).
func (b Backoff) delay(n int, r float64) time.Duration {
	d := b.Min
	for range n {
		if d >= b.Max {
			break
		}
		d *= 2
	}
	d = min(d, b.Max)
	return d/2 + time.Duration(r*float64(d/2))
}

func (b Backoff) random(n int) time.Duration { return b.delay(n, rand.Float64()) }

// ExitCode is what a shell's $? would be: the exit code, 128 + the number of
// the signal that killed it, 127 if the program was not found, 126 if it could
// not be started. It takes what exec.Cmd's Start, Wait or Run returned.
func ExitCode(err error) int {
	var exit *exec.ExitError
	switch {
	case err == nil, errors.Is(err, exec.ErrWaitDelay):
		return 0
	case errors.As(err, &exit):
		return stateCode(exit.ProcessState)
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, exec.ErrNotFound):
		return 127
	}
	return 126
}

func stateCode(state *os.ProcessState) int {
	if ws, ok := state.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
		return 128 + int(ws.Signal())
	}
	return state.ExitCode()
}
