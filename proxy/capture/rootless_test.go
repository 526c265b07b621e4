package capture

import (
	"errors"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
)

func TestDetectRoot(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("not root")
	}
	if m, reason := Detect(t.Context()); m != Transparent {
		t.Errorf("%s: %s", m, reason)
	}
}

// As a plain user, and then from within.
func TestDetectPlain(t *testing.T) {
	if os.Getenv(plainEnv) != "" && os.Getenv(sandboxEnv) == "" {
		if m, reason := Detect(t.Context()); m != Rootless || InRootless() {
			t.Fatalf("%s: %s", m, reason)
		}
	}
	inSandbox(t, []Mode{Rootless}, func(t *testing.T, _ Mode) {
		if m, reason := Detect(t.Context()); m != Rootless || !InRootless() {
			t.Errorf("%s: %s", m, reason)
		}
	})
}

func TestSwitchesAreNamed(t *testing.T) {
	only := func(path, value string) func(string) ([]byte, error) {
		return func(p string) ([]byte, error) {
			if p == path {
				return []byte(value + "\n"), nil
			}
			return nil, fs.ErrNotExist
		}
	}
	for path, want := range map[string]string{
		"/proc/sys/kernel/unprivileged_userns_clone":             "sysctl -w kernel.unprivileged_userns_clone=1",
		"/proc/sys/user/max_user_namespaces":                     "sysctl -w user.max_user_namespaces=15000",
		"/proc/sys/kernel/apparmor_restrict_unprivileged_userns": "AppArmor",
		"/nothing": "container",
	} {
		bad := "0"
		if strings.Contains(path, "apparmor") {
			bad = "1"
		}
		if got := userNamespaceSwitches(only(path, bad)); !strings.Contains(got, want) {
			t.Errorf("%s: %q", path, got)
		}
	}
}

// With user namespaces used up, Detect must fall back and name the switch.
func TestDetectRefused(t *testing.T) {
	inSandbox(t, []Mode{Rootless}, func(t *testing.T, _ Mode) {
		// The limit is counted per user namespace: this sandbox's own.
		if err := os.WriteFile("/proc/sys/user/max_user_namespaces", []byte("0"), 0); err != nil {
			t.Skip(err)
		}
		err := runProbe(t.Context())
		if err == nil || !strings.Contains(err.Error(), "sysctl -w user.max_user_namespaces") {
			t.Errorf("got %v", err)
		}
	})
}

// A listener opened outside serves from within.
func TestEnterRootlessPassesFiles(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	f, err := l.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	cmd, err := EnterRootless(t.Context(), RootlessExec{
		Argv: []string{"accept"}, Env: append(os.Environ(), helperEnv+"=1"),
		ExtraFiles: []*os.File{f}, Stderr: os.Stderr,
	})
	if err != nil {
		t.Fatal(err)
	}
	err = cmd.Start()
	if errors.Is(err, syscall.EPERM) || errors.Is(err, syscall.ENOSPC) {
		t.Skipf("no user namespaces: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if got := readAnswer(c); got != "uid 0, 1 interface, lo up true" {
		t.Errorf("got %q", got)
	}
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
}

func TestHiddenCommandRefusesPeople(t *testing.T) {
	out, err := exec.CommandContext(t.Context(), "/proc/self/exe", ChildCommand, "something").CombinedOutput()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 126 || !strings.Contains(string(out), "heddle's own use") {
		t.Errorf("%v: %s", err, out)
	}
}
