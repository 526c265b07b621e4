package capture

import (
	"bufio"
	"errors"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestCommand(t *testing.T) {
	eachMode(t, func(t *testing.T, m Mode) {
		n := openNetwork(t, testConfig(t, m))
		ns := newNamespace(t, n, NamespaceConfig{Name: "a"})
		sh := func(script string) Exec { return Exec{Argv: []string{"sh", "-c", script}} }
		uid, gid := strconv.Itoa(plainUID), strconv.Itoa(plainUID)
		if m == Rootless { // the user who started it, by default
			uid, gid, _ = strings.Cut(os.Getenv(plainEnv), ":")
		}
		plain, err := user.LookupId(uid)
		if err != nil {
			t.Fatal(err)
		}
		as := func(e Exec) Exec {
			if m == Transparent {
				e.User = uid
			}
			return e
		}
		before, err := os.ReadFile("/etc/resolv.conf")
		if err != nil {
			t.Fatal(err)
		}
		resolv := as(sh("cat /etc/resolv.conf /etc/hosts; ls /tmp > /dev/null"))
		resolv.ResolvConf, resolv.Hosts = []byte("nameserver 127.0.0.1\n"), []byte("127.0.0.1 localhost\n")
		dir := as(sh("pwd"))
		dir.Dir = "/usr"
		another := sh("id -u; id -g")
		another.User = "4321:8765"
		for _, c := range []struct {
			what string
			e    Exec
			want string
			code int
		}{
			{"uid", as(sh("id -u; id -un; id -g")), uid + "\n" + plain.Username + "\n" + gid, 0},
			{"another uid and gid", another, "4321\n8765", 0},
			{"resolver files", resolv, "nameserver 127.0.0.1\n127.0.0.1 localhost", 0},
			{"working directory", dir, "/usr", 0},
			{"exit code", as(sh("exit 7")), "", 7},
			{"no capabilities", as(sh("grep -E 'Cap(Inh|Prm|Eff|Bnd|Amb)|NoNew' /proc/self/status | cut -f2 | sort -u")), "0000000000000000\n1", 0},
			{"port 80", as(helperExec("listen", ":80")), "listening", 0},
			{"mark refused", as(helperExec("dial", "100.96.0.1:80", "1", "")), "operation not permitted", 1},
			{"nftables refused", as(helperExec("nft")), "operation not permitted", 1},
			{"nftables refused in a nested user namespace", as(helperExec("unshare")), "operation not permitted", 1},
			{"no such program", as(Exec{Argv: []string{"no-such-program"}}), "not found", 127},
			{"no such directory", as(Exec{Argv: []string{"true"}, Dir: "/nowhere"}), "no such file", 127},
			{"proxy may mark", ns.ProxyExec(sh("grep CapEff /proc/self/status | cut -f2")), map[Mode]string{Transparent: "0000000000000000", Rootless: "0000000000001000"}[m], 0},
		} {
			out, code := run(t, ns, c.e)
			if code != c.code || (c.code == 0 && out != c.want) || !strings.Contains(out, c.want) {
				t.Errorf("%s: exit %d, %q; want exit %d, %q", c.what, code, out, c.code, c.want)
			}
		}
		if after, _ := os.ReadFile("/etc/resolv.conf"); string(after) != string(before) {
			t.Errorf("resolv.conf changed for everybody: %q", after)
		}
		refused := map[Mode]string{Transparent: strconv.Itoa(DefaultProxyUID), Rootless: "0"}[m]
		if _, err := ns.Command(t.Context(), Exec{Argv: []string{"true"}, User: refused}); err == nil {
			t.Errorf("uid %s was accepted for an app", refused)
		}
	})
}

// The pid is the app's: a signal reaches it, and its death is seen.
func TestCommandSignal(t *testing.T) {
	eachMode(t, func(t *testing.T, m Mode) {
		ns := newNamespace(t, openNetwork(t, testConfig(t, m)), NamespaceConfig{Name: "a"})
		cmd, err := ns.Command(t.Context(), Exec{Argv: []string{"sh", "-c", "trap 'exit 9' TERM; echo $$; read x"}})
		if err != nil {
			t.Fatal(err)
		}
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		stdin, err := cmd.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		defer stdin.Close()
		if err := ns.Start(cmd); err != nil {
			t.Fatal(err)
		}
		line, err := bufio.NewReader(out).ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		if strings.TrimSpace(line) != strconv.Itoa(cmd.Process.Pid) {
			t.Errorf("pid %s, want %d", line, cmd.Process.Pid)
		}
		if err := cmd.Process.Signal(unix.SIGTERM); err != nil {
			t.Fatal(err)
		}
		var exit *exec.ExitError
		if err := cmd.Wait(); !errors.As(err, &exit) || exit.ExitCode() != 9 {
			t.Errorf("got %v, want exit code 9", err)
		}
	})
}

// In many distributions resolv.conf is a link into /run, which may dangle.
func TestResolvConfSymlink(t *testing.T) {
	eachMode(t, func(t *testing.T, m Mode) {
		ns := newNamespace(t, openNetwork(t, testConfig(t, m)), NamespaceConfig{Name: "a"})
		target := filepath.Join(t.TempDir(), "stub-resolv.conf")
		if err := os.WriteFile(target, []byte("nameserver 192.0.2.1\n"), 0o644); err != nil {
			t.Fatal(err)
		}
		if err := unix.Mount("tmpfs", "/etc", "tmpfs", 0, "mode=0755"); err != nil {
			t.Fatal(err)
		}
		for name, to := range map[string]string{"a link": target, "a dangling link": "/nowhere/resolv.conf"} {
			os.Remove("/etc/resolv.conf")
			if err := os.Symlink(to, "/etc/resolv.conf"); err != nil {
				t.Fatal(err)
			}
			out, code := run(t, ns, Exec{Argv: []string{"cat", "/etc/resolv.conf"}, ResolvConf: []byte("nameserver ::1")})
			if out != "nameserver ::1" || code != 0 {
				t.Errorf("%s: %q, exit %d", name, out, code)
			}
		}
		os.Remove("/etc/resolv.conf")
		out, code := run(t, ns, Exec{Argv: []string{"true"}, ResolvConf: []byte("nameserver ::1")})
		if code == 0 || !strings.Contains(out, "/etc/resolv.conf") {
			t.Errorf("no file: %q, exit %d", out, code)
		}
	})
}

// Nothing outlives the process that started it.
func TestParentDeath(t *testing.T) {
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe", "spawn")
	cmd.Env = append(os.Environ(), helperEnv+"=1")
	out, err := cmd.StdoutPipe() // the sleeper holds it too: it ends with both
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	r := bufio.NewReader(out)
	line, err := r.ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(line))
	if err != nil {
		t.Fatal(err)
	}
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	waitExecuted(t, pid, "sleep")
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_, _ = r.ReadString(0)
	_ = cmd.Wait()
	poll := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	for {
		k, err := unix.Poll(poll, 10_000)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if k != 1 || err != nil {
			t.Errorf("the app lives on: %v", err)
			_ = unix.Kill(pid, unix.SIGKILL)
		}
		return
	}
}

// waitExecuted waits until pid runs the program name.
func waitExecuted(t *testing.T, pid int, name string) {
	t.Helper()
	for t.Context().Err() == nil {
		comm, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/comm")
		if err != nil {
			t.Fatal(err)
		}
		if strings.TrimSpace(string(comm)) == name {
			return
		}
	}
}

func TestCommandExplicit(t *testing.T) {
	ns := HostNamespace(testLog(t))
	out, code := run(t, ns, Exec{Argv: []string{"sh", "-c", "grep CapBnd /proc/self/status | cut -f2; exit 3"}})
	if code != 3 {
		t.Errorf("exit %d, %q", code, out)
	}
	if _, err := ns.Command(t.Context(), Exec{Argv: []string{"true"}, ResolvConf: []byte("x")}); err == nil {
		t.Error("resolv.conf was accepted in explicit mode")
	}
}
