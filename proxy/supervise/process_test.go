package supervise_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/heddle-mesh/heddle/proxy/supervise"
)

func TestRunKeepsTheExitCode(t *testing.T) {
	for _, c := range []struct {
		name  string
		start func(context.Context) (*exec.Cmd, error)
		code  int
		state supervise.State
		err   bool
	}{
		{"zero", starts("exit", "0"), 0, supervise.Stopped, false},
		{"three", starts("exit", "3"), 3, supervise.Failed, false},
		{"killed", starts("crash"), 137, supervise.Failed, false},
		{"absent", func(context.Context) (*exec.Cmd, error) { return exec.Command("/nonexistent"), nil }, 127, supervise.Failed, true},
		{"not a program", func(context.Context) (*exec.Cmd, error) { return exec.Command("/etc/passwd"), nil }, 126, supervise.Failed, true},
		{"no command", func(context.Context) (*exec.Cmd, error) { return nil, errors.New("no socket") }, 126, supervise.Failed, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			for _, restart := range []supervise.Restart{supervise.Never, supervise.Always} {
				if restart == supervise.Always && !c.err {
					continue
				}
				p := supervise.New(supervise.Spec{Name: "p", Start: c.start, Restart: restart}, logger(t))
				code, err := p.Run(limited(t))
				status, _ := p.Status()
				if code != c.code || (err != nil) != c.err || status.State != c.state || status.ExitCode != c.code || status.PID != 0 {
					t.Errorf("code %d, error %v, status %+v; want code %d, %s", code, err, status, c.code, c.state)
				}
			}
		})
	}
}

func TestRunStopsInGoodOrder(t *testing.T) {
	up := filepath.Join(t.TempDir(), "up")
	p := supervise.New(supervise.Spec{Name: "p", Start: starts("term", up), Ready: fileThere(up), Restart: supervise.Always}, logger(t))
	ctx, cancel := context.WithCancel(limited(t))
	done := make(chan int)
	go func() {
		code, _ := p.Run(ctx)
		done <- code
	}()
	status, err := p.Await(ctx, func(s supervise.Status) bool { return s.State == supervise.Ready })
	if err != nil || status.PID == 0 {
		t.Fatal(status, err)
	}
	cancel()
	if code := <-done; code != 7 {
		t.Errorf("code is %d, want that of a program that caught SIGTERM", code)
	}
	if status, _ := p.Status(); status.State != supervise.Stopped || status.Restarts != 0 {
		t.Errorf("status is %+v", status)
	}
}

func TestRunRestarts(t *testing.T) {
	for _, c := range []struct {
		name    string
		restart supervise.Restart
		start   func(context.Context) (*exec.Cmd, error)
	}{
		{"always", supervise.Always, starts("exit", "0")},
		{"on failure", supervise.OnFailure, starts("crash")},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := supervise.New(supervise.Spec{
				Name: "p", Start: c.start, Restart: c.restart,
				Backoff: supervise.Backoff{Min: time.Millisecond, Max: 2 * time.Millisecond, Stable: time.Hour},
			}, logger(t))
			ctx, cancel := context.WithCancel(limited(t))
			done := make(chan struct{})
			go func() { defer close(done); p.Run(ctx) }()
			if _, err := p.Await(ctx, func(s supervise.Status) bool { return s.Restarts >= 3 }); err != nil {
				t.Error(err)
			}
			if _, err := p.Await(ctx, func(s supervise.Status) bool { return s.State == supervise.BackingOff }); err != nil {
				t.Error(err)
			}
			cancel()
			<-done
			if s, _ := p.Status(); s.State != supervise.Stopped {
				t.Errorf("status is %+v", s)
			}
		})
	}
}

// pidIn waits for the file in which a helper writes a pid.
func pidIn(t *testing.T, file string) int {
	t.Helper()
	ctx := limited(t)
	for {
		data, err := os.ReadFile(file)
		if pid, aerr := strconv.Atoi(string(data)); err == nil && aerr == nil {
			return pid
		}
		select {
		case <-time.After(5 * time.Millisecond):
		case <-ctx.Done():
			t.Fatal(err)
		}
	}
}

func TestStubbornGroupIsKilled(t *testing.T) {
	for _, byHand := range []bool{false, true} {
		file := filepath.Join(t.TempDir(), "pid")
		spec := supervise.Spec{Name: "p", Start: starts("stubborn", file), Grace: 50 * time.Millisecond}
		if byHand {
			spec.Grace = time.Hour
		}
		p := supervise.New(spec, logger(t))
		ctx, cancel := context.WithCancel(limited(t))
		done := make(chan int)
		go func() {
			code, _ := p.Run(ctx)
			done <- code
		}()
		child := pidIn(t, file)
		cancel()
		if byHand {
			p.Kill()
		}
		if code := <-done; code != 128+int(syscall.SIGKILL) {
			t.Errorf("code is %d", code)
		}
		gone(t, child)
	}
}

func TestNothingIsLeftBehind(t *testing.T) {
	file := filepath.Join(t.TempDir(), "pid")
	var out bytes.Buffer
	p := supervise.New(supervise.Spec{Name: "p", Start: func(context.Context) (*exec.Cmd, error) {
		cmd := helperCommand("orphan", file)
		cmd.Stdout = &out // a pipe, which the orphan holds open
		return cmd, nil
	}}, logger(t))
	if code, err := p.Run(limited(t)); code != 3 || err != nil {
		t.Errorf("code is %d, %v", code, err)
	}
	gone(t, pidIn(t, file))
}

func TestLines(t *testing.T) {
	var out bytes.Buffer
	lines := supervise.NewLines(&out)
	a, b := lines.Writer("a | "), lines.Writer("b | ")
	for _, w := range []struct {
		to   *supervise.LineWriter
		text string
	}{{a, "one\ntw"}, {b, "three\n"}, {a, "o\n\n"}, {b, "unfinished"}} {
		if n, err := w.to.Write([]byte(w.text)); n != len(w.text) || err != nil {
			t.Errorf("Write = %d, %v", n, err)
		}
	}
	a.Close()
	b.Close()
	if want := "a | one\nb | three\na | two\na | \nb | unfinished\n"; out.String() != want {
		t.Errorf("got  %q\nwant %q", out.String(), want)
	}
}

func FuzzLines(f *testing.F) {
	long := strings.Repeat("x", supervise.MaxLine)
	f.Add([]byte("a\nb"), 1)
	f.Add([]byte(long+"\n"), supervise.MaxLine)
	f.Add([]byte(long+"y\n"), 7)
	f.Fuzz(func(t *testing.T, data []byte, cut int) {
		var out bytes.Buffer
		w := supervise.NewLines(&out).Writer("> ")
		cut = min(max(cut, 0), len(data))
		w.Write(data[:cut])
		w.Write(data[cut:])
		w.Close()
		var back []byte
		for line := range bytes.Lines(out.Bytes()) {
			line, ok := bytes.CutPrefix(bytes.TrimSuffix(line, []byte("\n")), []byte("> "))
			if !ok || len(line) > supervise.MaxLine {
				t.Fatalf("bad line %q", line)
			}
			back = append(back, line...)
		}
		if want := bytes.ReplaceAll(data, []byte("\n"), nil); !bytes.Equal(back, want) {
			t.Errorf("got %q, want %q", back, want)
		}
	})
}
