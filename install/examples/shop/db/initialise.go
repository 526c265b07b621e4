package main

import (
	"bytes"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// schema makes the shop's table and its first documents.
//
//go:embed schema.sql
var schema string

// access lets whoever comes from this machine, or pod, in. In a mesh that is the sidecar,
// which has asked for the caller's identity already; in a pod it calls from 127.0.0.6 and
// ::6, wherever PostgreSQL listens.
const access = `host shop shop 127.0.0.0/8 trust
host shop shop ::6/128 trust
`

// initialise makes the data directory if there is none. It appears by a rename when it is
// complete, so that a start that was cut short is begun anew.
func (p postgres) initialise(ctx context.Context) error {
	if _, err := os.Stat(filepath.Join(p.data, "PG_VERSION")); err == nil {
		return nil
	} else if !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("look at the data: %w", err)
	}
	partial := postgres{p.part, p.data + ".partial"}
	if err := os.RemoveAll(partial.data); err != nil {
		return fmt.Errorf("remove an unfinished start: %w", err)
	}
	if err := partial.run(ctx, "initdb", "", "-D", partial.data, "-U", "postgres", "--auth=reject",
		"--encoding=UTF8", "--locale=C", "--no-sync"); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(partial.data, "pg_hba.conf"), []byte(access), 0o600); err != nil {
		return err
	}
	// Single-user mode: no socket, no other client, and its exit says that all is on disk.
	for _, step := range []struct{ database, sql string }{
		{"postgres", "CREATE ROLE shop LOGIN;\n\nCREATE DATABASE shop OWNER shop;\n\n"},
		{"shop", schema},
	} {
		if err := partial.run(ctx, "postgres", step.sql, "--single", "-j", "-D", partial.data,
			"-c", "exit_on_error=on", "-c", "dynamic_shared_memory_type=mmap", step.database); err != nil {
			return err
		}
	}
	if err := partial.run(ctx, "initdb", "", "-D", partial.data, "--sync-only"); err != nil {
		return err
	}
	if err := os.Rename(partial.data, p.data); err != nil {
		return fmt.Errorf("finish the data directory: %w", err)
	}
	return nil
}

// run runs a program to its end, with input, and tells what it said if it failed.
func (p postgres) run(ctx context.Context, program, input string, args ...string) error {
	cmd := exec.CommandContext(ctx, p.program(program), args...)
	var said bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr, cmd.Env = strings.NewReader(input), &said, &said, environment()
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("run %s: %w: %s", program, err, bytes.TrimSpace(said.Bytes()))
	}
	return nil
}
