// Command db runs the example shop's database, a real PostgreSQL with documents as JSONB.
// The first time it makes the data directory, the schema and some documents.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"github.com/heddle-mesh/heddle/install/parts"
)

func main() {
	part := flag.String("postgres", "", "`DIR` of the part postgres; empty means the cache")
	dir := flag.String("dir", "", "`DIR` for the data, private")
	listen := flag.String("listen", "127.0.0.1", "`ADDRESSES` to serve at, with commas; in a pod *, and it still lets in its sidecar only")
	port := flag.Uint("port", 5432, "port to serve at")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	code, err := run(ctx, *part, *dir, *listen, uint16(*port))
	if err != nil {
		fmt.Fprintln(os.Stderr, "db:", err)
		code = max(code, 1)
	}
	os.Exit(code)
}

// run serves until the context is done and returns PostgreSQL's exit code.
func run(ctx context.Context, part, dir, listen string, port uint16) (code int, err error) {
	if dir == "" {
		return 2, errors.New("no directory for the data; say --dir DIR")
	}
	if os.Geteuid() == 0 {
		return 2, errors.New("PostgreSQL does not run as root; start it as another user ('user: nobody' in heddle.yaml)")
	}
	if part == "" {
		if part, err = parts.Ensure(ctx, parts.Postgres, os.Stderr); err != nil {
			return 1, err
		}
	}
	p := postgres{part: part, data: filepath.Join(dir, "data")}
	if err := p.initialise(ctx); err != nil {
		return 1, err
	}
	return p.serve(ctx, listen, port)
}

// postgres is the programs of one version and a data directory.
type postgres struct{ part, data string }

func (p postgres) program(name string) string { return parts.Postgres.Program(p.part, name) }

// settings keep it small, and inside of the workload: it needs no place for a Unix socket.
func settings(listen string, port uint16) []string {
	var args []string
	for _, s := range []string{
		"listen_addresses=" + listen, "port=" + strconv.Itoa(int(port)), "unix_socket_directories=",
		"shared_buffers=16MB", "max_connections=60", "dynamic_shared_memory_type=mmap",
		"max_wal_size=64MB", "log_checkpoints=off", "jit=off",
	} {
		args = append(args, "-c", s)
	}
	return args
}

// serve runs the server. Being asked to end it asks PostgreSQL to end fast: by itself,
// at SIGTERM, PostgreSQL would wait for its clients to leave.
func (p postgres) serve(ctx context.Context, listen string, port uint16) (int, error) {
	if err := p.clearDead(ctx); err != nil {
		return 1, err
	}
	cmd := exec.CommandContext(ctx, p.program("postgres"), append([]string{"-D", p.data}, settings(listen, port)...)...)
	cmd.Stdout, cmd.Stderr, cmd.Env = os.Stdout, os.Stderr, environment()
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	// Should we be killed: SIGQUIT, an immediate end; the next start recovers.
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGQUIT}
	err := cmd.Run()
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		return exit.ExitCode(), nil
	}
	if err != nil && ctx.Err() == nil {
		return 1, fmt.Errorf("run PostgreSQL: %w", err)
	}
	return 0, nil
}

// environment is ours without what would change PostgreSQL's behaviour.
func environment() []string {
	env := []string{"LC_ALL=C"}
	for _, v := range os.Environ() {
		if !strings.HasPrefix(v, "PG") && !strings.HasPrefix(v, "LC_") && !strings.HasPrefix(v, "LANG") {
			env = append(env, v)
		}
	}
	return env
}
