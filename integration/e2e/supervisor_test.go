package e2e

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestSupervisorKilled kills the supervisor, which can do nothing about its children
// then, and starts the mesh again at once, on the same ports. The old processes end by
// themselves before anything new is started, and leave nothing.
func TestSupervisorKilled(t *testing.T) {
	inModes(t, func(t *testing.T, mode string) {
		p := prepare(t, mode, shop, shopObjects())
		place := p.Place()
		p.upAgain(place, func() { p.Kill("supervisor") })
		if mode == rootless { // the supervisor is the child of a process outside of its namespaces
			p.upAgain(place, func() {
				supervisor, err := p.Process("supervisor")
				if err != nil {
					t.Fatal(err)
				}
				if err := syscall.Kill(parent(t, supervisor.PID), syscall.SIGKILL); err != nil {
					t.Fatal(err)
				}
			})
		}
		p.left = p.observe()
		if out, err := p.Up(place, "--detach").CombinedOutput(); err == nil || !strings.Contains(string(out), "project e is running already") {
			t.Errorf("heddle up of what runs: %v\n%s", err, out)
		}
	})
}

// TestSupervisorKilledAlone only kills the supervisor.
func TestSupervisorKilledAlone(t *testing.T) {
	inModes(t, func(t *testing.T, mode string) {
		p := start(t, mode, shop, shopObjects())
		old := p.pids()
		p.Kill("supervisor")
		p.awaitGone(old)
		p.nothingIsLeft()
	})
}

// upAgain makes sure that the mesh runs, ends it by kill, and starts it again.
func (p *project) upAgain(place int, kill func()) {
	p.t.Helper()
	up := func() {
		if out, err := p.Up(place, "--detach", "--wait", "--timeout", "60s").CombinedOutput(); err != nil {
			p.t.Fatalf("heddle up: %v\n%s", err, out)
		}
	}
	if processes, err := p.Processes(); err != nil {
		p.t.Fatal(err)
	} else if len(processes) == 0 {
		up()
	}
	old := p.pids()
	var network remains
	if p.mode == rootless { // in other modes what is new will be in there, too
		network.network = p.watchLinks()
	}
	kill()
	up()
	p.awaitGone(old)
	network.checkLinks(p)
	p.AwaitCode("web-0", "http://api/", 200)
}

// awaitGone waits until processes are no more.
func (p *project) awaitGone(pids map[string]int) {
	p.t.Helper()
	for name, pid := range pids {
		await(p.t, 20*time.Second, fmt.Sprintf("%s has ended", name), func() error {
			if err := syscall.Kill(pid, 0); !errors.Is(err, syscall.ESRCH) {
				return fmt.Errorf("process %d: %v", pid, err)
			}
			return nil
		})
	}
}

// parent is the number of a process's parent.
func parent(t *testing.T, pid int) int {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		t.Fatal(err)
	}
	var number int
	_, rest, _ := strings.Cut(string(text), ") ") // a program's name may have spaces
	if _, err := fmt.Sscanf(rest, "%c %d", new(rune), &number); err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return number
}

// Place starts a process that keeps the namespaces that the mode asks for, for commands
// that run in them one after the other. It is 0 for a mode that asks for none.
func (p *project) Place() int {
	p.t.Helper()
	if !isolated(p.mode) {
		return 0
	}
	return p.Occupy(0, "127.0.0.1:9999")
}

// Occupy starts a process that listens on an address; see in for where. It returns its
// number.
func (p *project) Occupy(place int, address string) int {
	p.t.Helper()
	cmd := p.in(place, p.app, "serve", "--http", address)
	if err := cmd.Start(); err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait() // it says that it was killed
	})
	await(p.t, 10*time.Second, address+" is taken", func() error {
		out, err := p.in(cmd.Process.Pid, p.app, "get", "http://"+address+"/").CombinedOutput()
		if err == nil && !strings.Contains(string(out), `"code":200`) {
			err = errors.New(string(out))
		}
		return err
	})
	return cmd.Process.Pid
}
