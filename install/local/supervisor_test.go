package local

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/heddle-mesh/heddle/proxy/capture"
	"github.com/heddle-mesh/heddle/proxy/supervise"
)

// run launches a workload that runs a shell's script, and ends it with the test.
func (s *supervisor) run(t *testing.T, workload string, spec supervise.Spec) *managed {
	t.Helper()
	life, stop := context.WithCancel(context.Background())
	m := &managed{kind: "sidecar", workload: workload, stop: stop}
	if err := s.launch(life, m, spec); err != nil {
		t.Fatal(err)
	}
	return m
}

func shell(name, script string, ready func(context.Context) error) supervise.Spec {
	return supervise.Spec{Name: name, Ready: ready, Start: func(context.Context) (*exec.Cmd, error) {
		return exec.Command("sh", "-c", script), nil
	}}
}

func never(context.Context) error { return errors.New("not yet") }

func newSupervisor(t *testing.T) *supervisor {
	config, err := Parse([]byte(valid))
	if err != nil {
		t.Fatal(err)
	}
	s := &supervisor{Options: Options{Config: config, Log: slog.New(slog.NewTextHandler(t.Output(), nil))}}
	t.Cleanup(func() {
		if err := s.end(func() {}); err != nil {
			t.Error(err)
		}
	})
	return s
}

// limited is a context that ends the test rather than let it hang.
func limited(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

// TestAwaitEnded: what waits for a program goes on when that has done its work, and gives
// up when it has failed.
func TestAwaitEnded(t *testing.T) {
	s := newSupervisor(t)
	s.run(t, "job", shell("job", "exit 0", never))
	if err := s.awaitReady(limited(t), "job"); err != nil {
		t.Errorf("a job that is done: %v", err)
	}
	s.run(t, "bad", shell("bad", "exit 3", never))
	if err := s.awaitReady(limited(t), "bad"); err == nil || !strings.Contains(err.Error(), "bad ended with code 3") {
		t.Errorf("a job that failed: %v", err)
	}
}

// TestAwaitRestarted restarts a workload that others wait for, while it is not ready. They
// wait for the one in its place.
func TestAwaitRestarted(t *testing.T) {
	s := newSupervisor(t)
	var starts atomic.Int32
	asked := make(chan struct{}, 1)
	spec := shell("db", "exec sleep 1000", func(context.Context) error {
		if starts.Load() < 2 {
			select {
			case asked <- struct{}{}:
			default:
			}
			return errors.New("not yet")
		}
		return nil
	})
	begin := spec.Start
	spec.Start = func(ctx context.Context) (*exec.Cmd, error) {
		starts.Add(1)
		return begin(ctx)
	}
	old := s.run(t, "db", spec)
	waited := make(chan error, 1)
	ctx := limited(t)
	go func() { waited <- s.awaitReady(ctx, "db") }()
	<-asked
	if err := s.restartOne(ctx, "db"); err != nil {
		t.Fatal(err)
	}
	if err := <-waited; err != nil {
		t.Error(err)
	}
	if status, _ := s.processes[0].Status(); s.processes[0] == old || status.State != supervise.Ready {
		t.Errorf("it is %+v", status)
	}
}

// TestHurry ends a program that does not listen to SIGTERM, long before its grace is over.
func TestHurry(t *testing.T) {
	s := newSupervisor(t)
	hurry := make(chan struct{})
	s.Hurry = hurry
	ready := filepath.Join(t.TempDir(), "ready")
	spec := shell("web", `trap "" TERM; trap "exit 9" INT; touch `+ready+`; while :; do sleep 0.1; done`, func(context.Context) error {
		_, err := os.Stat(ready)
		return err
	})
	spec.Grace = time.Hour
	m := s.run(t, "web", spec)
	if err := m.ready(limited(t)); err != nil {
		t.Fatal(err)
	}
	close(hurry)
	if err := s.end(func() {}); !errors.Is(err, ErrHurried) {
		t.Errorf("error %v, want %v", err, ErrHurried)
	}
	if status, _ := m.Status(); status.PID != 0 || status.ExitCode != 9 {
		t.Errorf("it is %+v, want the end by SIGINT", status)
	}
	s.Hurry = nil
}

// TestLock waits for what an earlier run has left.
func TestLock(t *testing.T) {
	p, err := OpenProject(filepath.Join(t.TempDir(), "h"), "mine")
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Make(); err != nil {
		t.Fatal(err)
	}
	f, err := p.lock()
	if err != nil {
		t.Fatal(err)
	}
	ended, cancel := context.WithCancelCause(t.Context())
	cancel(errors.New("out of patience"))
	if err := p.AwaitFree(ended, t.Output()); err == nil || !strings.Contains(err.Error(), "(pid ") || !strings.Contains(err.Error(), "out of patience") {
		t.Errorf("up while an earlier run is there: %v", err)
	}
	if err := Down(ended, p); err == nil || !strings.Contains(err.Error(), "out of patience") {
		t.Errorf("down while an earlier run is there: %v", err)
	}
	if _, err := p.lock(); !errors.Is(err, capture.ErrHeld) {
		t.Errorf("a second lock: %v", err)
	}
	f.Close()
	if err := p.AwaitFree(limited(t), t.Output()); err != nil {
		t.Error(err)
	}
	if err := Down(limited(t), p); err != nil {
		t.Error(err)
	}
}

// TestMake makes folders that programs of other users can pass through, whatever the umask.
func TestMake(t *testing.T) {
	home := filepath.Join(t.TempDir(), "h")
	p, err := OpenProject(home, "mine")
	if err != nil {
		t.Fatal(err)
	}
	defer syscall.Umask(syscall.Umask(0o077)) // the process's: no test here is parallel
	if err := p.Make(); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]os.FileMode{home: 0o711, p.Dir: 0o711, p.path("data"): 0o711, p.path("logs"): 0o700} {
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != want {
			t.Errorf("%s: %v %v, want %v", path, info, err, want)
		}
	}
}
