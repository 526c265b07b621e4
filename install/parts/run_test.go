package parts_test

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/heddle-mesh/heddle/install/parts"
	"github.com/heddle-mesh/heddle/install/parts/partstest"
)

const nobody = 65534

// asPlainUser makes cmd run as nobody if we are root, in an empty environment.
func asPlainUser(cmd *exec.Cmd) *exec.Cmd {
	cmd.Env = []string{"PATH=/usr/bin:/bin"}
	if os.Geteuid() == 0 {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	}
	return cmd
}

// plainDir is a directory of that user's, with a path short enough for sockets.
func plainDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "heddle-parts-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if os.Geteuid() == 0 {
		if err := os.Chown(dir, nobody, nobody); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// reachable skips the test when root's cache is where plain users cannot go,
// which is so only with an XDG_CACHE_HOME of one's own.
func reachable(t *testing.T, program string) {
	t.Helper()
	err := asPlainUser(exec.Command(program, "--version")).Run()
	if errors.Is(err, os.ErrPermission) {
		t.Skipf("a plain user cannot reach %s", program)
	}
}

// TestPostgresAsPlainUser makes a database, starts it and asks it for a JSON
// document, with nothing but what the part holds.
func TestPostgresAsPlainUser(t *testing.T) {
	if testing.Short() {
		t.Skip("uses the network")
	}
	postgres, dir := partstest.Program(t, parts.Postgres, "postgres"), plainDir(t)
	reachable(t, postgres)
	data := filepath.Join(dir, "data")
	run := func(program string, args ...string) (string, error) {
		cmd := asPlainUser(exec.Command(partstest.Program(t, parts.Postgres, program), args...))
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	if out, err := run("initdb", "-D", data, "-U", "heddle", "--auth=trust", "--no-sync", "--encoding=UTF8", "--locale=C"); err != nil {
		t.Fatalf("initdb: %v\n%s", err, out)
	}
	server := asPlainUser(exec.Command(postgres, "-D", data, "-k", dir, "-c", "listen_addresses="))
	server.Stdout, server.Stderr = t.Output(), t.Output()
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		server.Process.Signal(syscall.SIGINT) // "fast shutdown"
		server.Wait()
	}()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	for {
		out, err := run("pg_isready", "-h", dir)
		if err == nil {
			break
		}
		select {
		case <-time.After(50 * time.Millisecond):
		case <-ctx.Done():
			t.Fatalf("the server does not start: %v\n%s", err, out)
		}
	}
	out, err := run("psql", "-X", "-A", "-t", "-h", dir, "-U", "heddle", "-d", "postgres", "-c", `select '{"name": "chair"}'::jsonb->>'name'`)
	if err != nil || strings.TrimSpace(out) != "chair" {
		t.Errorf("psql: %q, %v", out, err)
	}
}

func TestNginxAsPlainUser(t *testing.T) {
	if testing.Short() {
		t.Skip("uses the network")
	}
	nginx, dir := partstest.Program(t, parts.Nginx, "nginx"), plainDir(t)
	reachable(t, nginx)
	config := "pid nginx.pid; error_log stderr; events {}\nhttp { server { listen unix:" + dir + "/web.sock; } }\n"
	if err := os.WriteFile(filepath.Join(dir, "nginx.conf"), []byte(config), 0o644); err != nil {
		t.Fatal(err)
	}
	out, err := asPlainUser(exec.Command(nginx, "-t", "-p", dir, "-c", filepath.Join(dir, "nginx.conf"))).CombinedOutput()
	if err != nil || !strings.Contains(string(out), "test is successful") {
		t.Errorf("nginx -t: %v\n%s", err, out)
	}
}
