package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"
)

// interrupted is a mesh with a program that, when it is told to end, asks another one for
// the last time, and one that does not listen to such orders.
const interrupted = `
services:
  api:
    labels: {app: api}
    ports: [8080]
    command: [APP, serve, --http, ":8080"]
  last:
    after: [api]
    command: [sh, -c, "trap 'APP get http://api/; exit' TERM; while :; do sleep 0.1; done"]
`

const stubborn = `
  stubborn:
    after: [api]
    command: [sh, -c, "trap '' TERM; while :; do sleep 1; done"]
`

func interruptedObjects() map[string]string {
	return map[string]string{
		"services.yaml": service("api", "app: api", "{name: http, port: 80, targetPort: 8080}"),
	}
}

// TestInterrupt presses Ctrl-C once: a program that ends can still call others, they are
// there and so are the proxies between them. Then everything is gone.
func TestInterrupt(t *testing.T) {
	inModes(t, func(t *testing.T, mode string) {
		p := prepare(t, mode, interrupted, interruptedObjects())
		up := p.foreground(2)
		up.interrupt()
		if code := up.end(); code != 0 {
			t.Errorf("exit code %d, want 0", code)
		}
		p.nothingIsLeft()
		if log := p.Log("last-0"); !strings.Contains(log, `\"workload\":\"api-0\"`) {
			t.Error("the last call was not answered")
		}
		for _, name := range []string{"controlplane", "api-0", "last-0"} {
			if strings.Contains(p.Log(name), "killing it") {
				t.Errorf("%s or what it runs was killed", name)
			}
		}
	})
}

// TestInterruptTwice presses Ctrl-C again while a program does not end. It is not waited
// for any longer, and what was made for it is taken down all the same.
func TestInterruptTwice(t *testing.T) {
	inModes(t, func(t *testing.T, mode string) {
		p := prepare(t, mode, interrupted+stubborn, interruptedObjects())
		up := p.foreground(3)
		up.interrupt()
		await(t, 20*time.Second, "the stubborn program is asked to end", func() error {
			sidecar, err := p.Process("stubborn-0")
			if err == nil && sidecar.State != "draining" {
				err = fmt.Errorf("%+v", sidecar)
			}
			return err
		})
		up.interrupt()
		if code := up.end(); code != 130 {
			t.Errorf("exit code %d, want 130", code)
		}
		p.nothingIsLeft()
		if !strings.Contains(up.out.String(), "ended at once") {
			t.Errorf("heddle up does not say that it was ended at once:\n%s", up.out.String())
		}
		if strings.Contains(p.Log("stubborn-0"), "process does not stop, killing it") {
			t.Error("the stubborn program's time was waited for")
		}
	})
}

// foreground is a "heddle up" without --detach.
type foreground struct {
	p    *project
	cmd  *exec.Cmd
	out  bytes.Buffer // to be read after the end
	done chan error
}

// foreground starts the mesh as a shell does, in a process group of its own, and waits
// until so many workloads are ready.
func (p *project) foreground(workloads int) *foreground {
	p.t.Helper()
	f := &foreground{p: p, cmd: p.Up(0), done: make(chan error, 1)}
	f.cmd.Stdout, f.cmd.Stderr = io.Discard, &f.out
	f.cmd.SysProcAttr.Setpgid = true
	if err := f.cmd.Start(); err != nil {
		p.t.Fatal(err)
	}
	go func() { f.done <- f.cmd.Wait() }()
	p.t.Cleanup(func() { _ = f.cmd.Process.Kill() }) // usually it has ended
	await(p.t, time.Minute, "all is ready", func() error {
		processes, err := p.Processes()
		ready := 0
		for _, q := range processes {
			if q.Kind == "sidecar" && q.State == "ready" {
				ready++
			}
		}
		if err == nil && ready < workloads {
			err = fmt.Errorf("%+v", processes)
		}
		return err
	})
	p.left = p.observe()
	return f
}

// interrupt does as a terminal at Ctrl-C: the whole foreground group gets the signal.
func (f *foreground) interrupt() {
	f.p.t.Helper()
	if err := syscall.Kill(-f.cmd.Process.Pid, syscall.SIGINT); err != nil {
		f.p.t.Fatal(err)
	}
}

// end waits for the end and gives the exit code.
func (f *foreground) end() int {
	f.p.t.Helper()
	select {
	case err := <-f.done:
		if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
			f.p.t.Fatal(err)
		}
	case <-time.After(time.Minute):
		f.p.t.Fatal("heddle up does not end")
	}
	return f.cmd.ProcessState.ExitCode()
}

// nothingIsLeft looks for what is left of a mesh that has ended.
func (p *project) nothingIsLeft() {
	p.t.Helper()
	p.checkProcesses()
	p.left.check(p)
	p.left = nil
}
