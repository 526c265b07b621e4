package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// endTime is for a server whose parent was killed to end in; immediate shutdown gives its
// children five seconds.
const endTime = 10 * time.Second

// clearDead waits for the end of a server whose parent was killed, and removes the pid file
// of one that was killed itself: its pid may be another process's by now, for which
// PostgreSQL would not start.
func (p postgres) clearDead(ctx context.Context) error {
	pidFile := filepath.Join(p.data, "postmaster.pid")
	ctx, cancel := context.WithTimeout(ctx, endTime)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		text, err := os.ReadFile(pidFile)
		if errors.Is(err, os.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		pid, _, _ := strings.Cut(string(text), "\n")
		if !p.servedBy(pid) {
			break
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("the data in %s is in use by process %s", p.data, pid)
		}
	}
	if err := os.Remove(pidFile); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("remove the pid file of a dead server: %w", err)
	}
	return nil
}

// servedBy says whether the process is a PostgreSQL with our data: that is its working
// directory. Of a process in another user namespace we may only know the name.
func (p postgres) servedBy(pid string) bool {
	dir, err := os.Stat(filepath.Join("/proc", pid, "cwd"))
	if errors.Is(err, os.ErrPermission) {
		name, _ := os.ReadFile(filepath.Join("/proc", pid, "comm"))
		return strings.TrimSpace(string(name)) == "postgres"
	}
	if err != nil {
		return false
	}
	data, err := os.Stat(p.data)
	return err == nil && os.SameFile(dir, data)
}
