package cluster

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"time"
)

// children starts the programs of a process that is the first of its pid namespace: all
// orphans of the namespace are its to reap, so it waits for any child and not for its own.
type children struct {
	logs, holds string // folders

	mu     sync.Mutex // guards what follows
	exited map[int]chan syscall.WaitStatus
	some   chan struct{} // closed when there is a child again
}

func newChildren(dir string) *children {
	c := &children{logs: filepath.Join(dir, "log"), holds: filepath.Join(dir, holdFolder), exited: map[int]chan syscall.WaitStatus{}, some: make(chan struct{})}
	go c.reap() // until the namespace ends with us
	return c
}

func (c *children) reap() {
	for {
		c.mu.Lock()
		some := c.some
		c.mu.Unlock()
		var status syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &status, 0, nil)
		if errors.Is(err, syscall.ECHILD) {
			<-some
			continue
		}
		if err != nil {
			continue // interrupted
		}
		c.mu.Lock()
		if done, ours := c.exited[pid]; ours {
			done <- status
			delete(c.exited, pid)
		}
		c.mu.Unlock()
	}
}

// start starts a program; what it says goes to NAME.log.
func (c *children) start(name string, cmd *exec.Cmd) (done <-chan syscall.WaitStatus, err error) {
	log, err := os.OpenFile(filepath.Join(c.logs, name+".log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	cmd.Stdout, cmd.Stderr = log, log
	c.mu.Lock() // the child is not reaped before it is noted
	defer c.mu.Unlock()
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	exited := make(chan syscall.WaitStatus, 1)
	c.exited[cmd.Process.Pid] = exited
	close(c.some)
	c.some = make(chan struct{})
	return exited, nil
}

// run runs a program to its end.
func (c *children) run(name string, args ...string) error {
	done, err := c.start(name, exec.Command(args[0], args[1:]...))
	if err != nil {
		return err
	}
	if status := <-done; status != 0 {
		return fmt.Errorf("%v ended with %v; see %s.log", args, status.ExitStatus(), name)
	}
	return nil
}

// keep keeps a program running.
func (c *children) keep(name string, args ...string) {
	go c.supervise(name, func() (<-chan syscall.WaitStatus, error) {
		return c.start(name, exec.Command(args[0], args[1:]...))
	})
}

// holdFolder has a file for each program that is not to run, by name.
const holdFolder = "hold"

// supervise starts again what ends, a second later and not while it is held.
func (c *children) supervise(name string, start func() (<-chan syscall.WaitStatus, error)) {
	for ; ; time.Sleep(time.Second) {
		for c.held(name) {
			time.Sleep(50 * time.Millisecond)
		}
		done, err := start()
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			continue
		}
		status := <-done
		fmt.Fprintf(os.Stderr, "%s %s ended with %d\n", time.Now().Format(time.TimeOnly), name, status.ExitStatus())
	}
}

func (c *children) held(name string) bool {
	_, err := os.Stat(filepath.Join(c.holds, name))
	return err == nil
}
