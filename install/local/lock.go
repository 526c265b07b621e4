package local

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"time"

	"github.com/heddle-mesh/heddle/proxy/capture"
	"github.com/heddle-mesh/heddle/proxy/supervise"
)

// A project's lock is a flock(2) lock on an open file that the supervisor shares with its
// children. So it is held until the last of them has ended, also where the supervisor was
// killed and they end by themselves: ports, addresses and namespaces are free only then.

// errRunning is of a project with a supervisor that does not end.
var errRunning = errors.New("is running already; see 'heddle ps', or end it with 'heddle down'")

// maxEnding is how long the processes of an earlier run may take to end; a program has
// 10 s after its SIGTERM.
const maxEnding = 30 * time.Second

// lock takes the project; the error is capture.ErrHeld while an earlier run has it.
func (p Project) lock() (*os.File, error) { return capture.TryLockFile(p.path("lock")) }

// lockName is the lock's among [Options.Files].
const lockName = "lock"

// takeLock takes the project until the end of this process: who waits for the lock must
// not find us. A process that has made the namespaces for us has taken it, and shares it.
func (s *supervisor) takeLock() (err error) {
	if s.lock = s.Files[lockName]; s.lock != nil {
		return nil
	}
	s.lock, err = s.Project.lock()
	if errors.Is(err, capture.ErrHeld) {
		return fmt.Errorf("project %s %w", s.Project.Name, errRunning)
	}
	return err
}

// locked reports whether something of a run is there.
func (p Project) locked() bool {
	f, err := p.lock()
	if err == nil {
		f.Close()
	}
	return errors.Is(err, capture.ErrHeld)
}

// AwaitFree waits until nothing of an earlier run of the project is left, and says so to
// w. The error is for a project that runs and is not ending.
func (p Project) AwaitFree(ctx context.Context, w io.Writer) error {
	if err := p.Make(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, maxEnding)
	defer cancel()
	for said := false; ; said = true {
		f, err := p.lock()
		if err == nil {
			return f.Close()
		}
		if !errors.Is(err, capture.ErrHeld) {
			return err
		}
		if p.runs(ctx) {
			return fmt.Errorf("project %s %w", p.Name, errRunning)
		}
		if !said {
			fmt.Fprintf(w, "waiting for the end of an earlier run of %s\n", p.Name)
		}
		select {
		case <-time.After(50 * time.Millisecond):
		case <-ctx.Done():
			return fmt.Errorf("an earlier run of %s does not end, there is still %s: %w", p.Name, processOf(p.path("lock")), context.Cause(ctx))
		}
	}
}

// runs reports whether a supervisor answers and is not ending. One that could not start
// everything runs.
func (p Project) runs(ctx context.Context) bool {
	processes, err := PS(ctx, p)
	return err == nil && slices.ContainsFunc(processes.Items, func(q Process) bool {
		return q.Kind == supervisorKind && q.State != string(supervise.Draining)
	})
}
