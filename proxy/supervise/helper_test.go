package supervise_test

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"syscall"
	"testing"
	"time"
)

// The test binary, started again with this variable, is the program under
// supervision: it does what the value says.
const helperVariable = "SUPERVISE_TEST_HELPER"

func TestMain(m *testing.M) {
	if what, ok := os.LookupEnv(helperVariable); ok {
		helper(what, os.Args[1:])
	}
	os.Exit(m.Run())
}

func helper(what string, args []string) {
	switch what {
	case "exit":
		code, _ := strconv.Atoi(args[0])
		os.Exit(code)
	case "crash":
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
	case "term": // ends with code 7 at SIGTERM; args[0] is a file that says it runs
		c := make(chan os.Signal, 1)
		signal.Notify(c, syscall.SIGTERM)
		mustWrite(args[0])
		<-c
		os.Exit(7)
	case "stubborn": // does not end at SIGTERM, nor does its child, whose pid it writes
		signal.Ignore(syscall.SIGTERM)
		child := helperCommand("sleep")
		if err := child.Start(); err != nil {
			os.Exit(1)
		}
		if err := os.WriteFile(args[0], fmt.Append(nil, child.Process.Pid), 0o600); err != nil {
			os.Exit(1)
		}
	case "orphan": // ends at once but leaves a child, whose pid it writes
		child := helperCommand("sleep")
		child.Stdout = os.Stdout
		if err := child.Start(); err != nil {
			os.Exit(1)
		}
		if err := os.WriteFile(args[0], fmt.Append(nil, child.Process.Pid), 0o600); err != nil {
			os.Exit(1)
		}
		os.Exit(3)
	case "sleep":
	}
	time.Sleep(time.Hour)
}

func mustWrite(path string) {
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		os.Exit(99)
	}
}

func helperCommand(what string, args ...string) *exec.Cmd {
	self, err := os.Executable()
	if err != nil {
		panic(err)
	}
	cmd := exec.Command(self, args...)
	cmd.Env = append(os.Environ(), helperVariable+"="+what)
	return cmd
}

// starts makes a Spec's Start.
func starts(what string, args ...string) func(context.Context) (*exec.Cmd, error) {
	return func(context.Context) (*exec.Cmd, error) { return helperCommand(what, args...), nil }
}

// fileThere is a Spec's Ready.
func fileThere(path string) func(context.Context) error {
	return func(context.Context) error {
		_, err := os.Stat(path)
		return err
	}
}

func logger(t *testing.T) *slog.Logger { return slog.New(slog.NewTextHandler(t.Output(), nil)) }

// limited is a context that ends the test rather than let it hang.
func limited(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// gone waits until the process is no more, or a zombie that its new parent has
// not fetched.
func gone(t *testing.T, pid int) {
	t.Helper()
	ctx := limited(t)
	for {
		data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		var comm string
		var state byte
		if err == nil {
			_, _ = fmt.Sscanf(string(data), "%d %s %c", new(int), &comm, &state)
		}
		if err != nil || state == 'Z' || state == 'X' {
			return
		}
		select {
		case <-time.After(5 * time.Millisecond):
		case <-ctx.Done():
			t.Fatalf("process %d still runs: %s", pid, data)
		}
	}
}
